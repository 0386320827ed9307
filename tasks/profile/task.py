"""The `profile` step: what each layer does, and what each strategy would damage."""

from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step(
    "profile",
    after="fetch",
    seconds="layerwright.tasks.profile.estimate.seconds",
    streams=True,
)
profile_model = Node[ModelProfile](STEP, "layerwright.tasks.profile.model.profile_model")
