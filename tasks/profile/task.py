"""The `profile` step: score each layer, and measure the damage of each strategy."""

from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step(
    "profile", after="fetch", seconds="layerwright.tasks.profile.estimate.seconds", streams=True
)
profile_model = Node[ModelProfile](STEP, "layerwright.tasks.profile.model.profile_model")
