"""How the metrics of this project say that pages show them, as an evaluation has it."""

from layerwright.tasks.components import discover
from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import presentation_of

FIRST = ("perplexity", "divergence", "recall", "kv_cache", "decode_speed")


def presentation() -> dict[str, Presentation]:
    """Of all metrics, as if a recipe named ``FIRST`` before the others."""
    found = discover(Metric)
    return presentation_of([*(found[name] for name in FIRST), *found.values()])
