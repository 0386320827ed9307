"""The `register` step, which is never cached: it checks each time what the registry has."""

from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step("register", after="export", seconds=5.0, placed=False)
register_model = Node[Registration](
    STEP, "layerwright.tasks.register.registry.register_candidate", cached=False
)
