"""The `convert` step: base checkpoint and plan -> hybrid checkpoint, a tensor at a time."""

from layerwright.tasks.contracts.references import CheckpointRef
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

ESTIMATE = "layerwright.tasks.convert.estimate.seconds"
STEP = Step("convert", after="regularize", seconds=ESTIMATE, streams=True)
convert_model = Node[CheckpointRef](STEP, "layerwright.tasks.convert.checkpoint.convert_model")
