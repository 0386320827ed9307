"""The training steps: `regularize` before the conversion, `finetune` after it."""

from layerwright.tasks.contracts.training import FinetuneReport, RegularizationReport
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

REGULARIZE = Step(
    "regularize",
    after="choose",
    block="regularize",
    seconds="layerwright.tasks.finetune.estimate.regularize_seconds",
    trains=True,
)
FINETUNE = Step(
    "finetune",
    after="convert",
    block="finetune",
    seconds="layerwright.tasks.finetune.estimate.finetune_seconds",
    trains=True,
)
regularize_model = Node[RegularizationReport](
    REGULARIZE, "layerwright.tasks.finetune.regularization.regularize_model"
)
finetune_model = Node[FinetuneReport](FINETUNE, "layerwright.tasks.finetune.healing.finetune_model")
