"""The `export` step: the form of an accepted checkpoint that is registered and served."""

from layerwright.tasks.contracts.checkpoint import ServedForm
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step("export", after="gate", seconds=30.0)
export_checkpoint = Node[ServedForm](STEP, "layerwright.tasks.export.served.served_form")
