"""Distance of an arm's residual stream from the base's, after each layer."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, Item, RowsMetric, scored, shown
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.passes.stream import Stream


class StreamDrift(RowsMetric):
    """``stream_drift.<text>``: mean over the layers of mean_t |h_t - g_t| / |g_t|.

    g_t and h_t are the residual streams of token t after the layer, in the base and in the arm. All
    tokens have equal weight, also first tokens with massive activations. The items are the layers,
    so the report shows where a conversion adds error and where later layers reduce it.
    """

    name = "stream_drift"
    families = ("stream_drift",)
    presentation = {
        "stream_drift": shown(
            "Drift of the residual stream",
            "distance from the base's over its norm, mean over layers; 0 is unchanged",
        )
    }

    rows: Count = 2
    row_tokens: Annotated[int, Field(gt=1)] = 512

    def estimate_tokens(self) -> int:
        return 2 * len(self.texts) * self.rows * self.row_tokens  # the base runs along

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for row_pass in self.row_passes():
            metric, rows = f"stream_drift.{row_pass.text}", arms.texts.rows(row_pass)
            options = [row_pass.text, self.rows, self.row_tokens]
            layers = range(len(arms.model("base").model.layers))
            compute = partial(_drifts, base=arms.model("base"), rows=rows, keep=arms.keep)
            for arm in [name for name in arms.names if name != "base"]:
                what = f"{arm}: stream, {row_pass.text}"
                drifts = arms.item_results(arm, "stream-drift", options, layers, compute, what=what)
                items = [Item(f"layer {i}", v) for i, v in zip(layers, drifts, strict=True)]
                detail, seed = f"{self.extent}, mean over the layers", arms.seed_of(metric)
                yield scored(metric, arm, items, "of the base's norm", seed, detail=detail)


@torch.inference_mode()
def _drifts(
    model: HybridForCausalLM,
    layers: Sequence[int],
    base: HybridForCausalLM,
    rows: Tensor,
    keep: Keep,
) -> Iterator[float]:
    """Yield the distance after each of ``layers``, in ascending order."""
    stream, base_stream = Stream(model, rows, keep, at_once=1), Stream(base, rows, keep, at_once=1)
    for layer in range(max(layers) + 1):
        stream.advance()
        base_stream.advance()
        if layer in layers:
            pairs = zip(stream.states, base_stream.states, strict=True)
            yield torch.stack([_distance(h, g) for h, g in pairs]).mean().item()


def _distance(arm_1TD: Tensor, base_1TD: Tensor) -> Tensor:
    arm_1TD, base_1TD = arm_1TD.float(), base_1TD.float()
    return ((arm_1TD - base_1TD).norm(dim=-1) / base_1TD.norm(dim=-1)).mean()
