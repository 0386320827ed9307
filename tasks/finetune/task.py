"""The training steps: `regularize` before the conversion, `finetune` after it."""

from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

ESTIMATES = "layerwright.tasks.finetune.estimate"
REGULARIZE = Step(
    "regularize", "choose", "regularize", f"{ESTIMATES}.regularize_seconds", trains=True
)
FINETUNE = Step("finetune", "convert", "finetune", f"{ESTIMATES}.finetune_seconds", trains=True)
regularize_model = Node[RegularizationReport](
    REGULARIZE, "layerwright.tasks.finetune.regularization.regularize_model"
)
finetune_model = Node[FinetuneReport](FINETUNE, "layerwright.tasks.finetune.healing.finetune_model")
