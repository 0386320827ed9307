"""The `fetch` step: download and normalise the base model and each text."""

from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step("fetch")
fetch_model = Node[ModelRef](STEP, "layerwright.tasks.fetch.model.fetch_model")
fetch_text = Node[TextRef](STEP, "layerwright.tasks.fetch.text.fetch_text")
