"""How far an arm's residual stream is from the base's, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric, TextPass
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.passes.stream import Stream


class StreamDrift(Metric):
    """``stream_drift.<text>``: distance of the stream from the base's, the mean over all layers.

    Of one layer it is mean_t |h_t - g_t| / |g_t|, with g_t and h_t the stream of token t after that
    layer in the base and in the arm: each token counts alike, the massive first ones too. The items
    are the layers, so that the report shows where a conversion is felt and where it heals.
    """

    name: ClassVar[str] = "stream_drift"

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    rows: Annotated[int, Field(gt=0)] = 2
    row_tokens: Annotated[int, Field(gt=1)] = 512

    def names(self) -> tuple[str, ...]:
        return tuple(f"stream_drift.{text}" for text in self.texts)

    def needed_texts(self) -> tuple[str, ...]:
        return self.texts

    def estimate_tokens(self) -> int:
        return 2 * len(self.texts) * self.rows * self.row_tokens  # the base runs along

    def measure(self, arms: Arms) -> Iterator[Figure]:
        for text in self.texts:
            rows = arms.texts.rows(TextPass(text, self.rows, self.row_tokens))
            layers = range(len(arms.model("base").model.layers))
            for arm in arms.names:
                if arm == "base":
                    continue
                compute = partial(_drifts, base=arms.model("base"), rows=rows, keep=arms.keep)
                options = [text, self.rows, self.row_tokens]
                found = arms.remembered(
                    arm, "stream-drift", options, layers, compute, what=f"{arm}: stream, {text}"
                )
                metric = f"stream_drift.{text}"
                yield scored(
                    metric,
                    arm,
                    [Item(f"layer {i}", value) for i, value in zip(layers, found, strict=True)],
                    unit="of the base's norm",
                    higher_is_better=False,
                    seed=arms.seed_of(metric),
                    detail=f"{self.rows} rows of {self.row_tokens} tokens, mean over the layers",
                )


@torch.inference_mode()
def _drifts(
    model: HybridForCausalLM,
    layers: Sequence[int],
    *,
    base: HybridForCausalLM,
    rows: Tensor,
    keep: Keep,
) -> Iterator[float]:
    """The distance after each of some layers, from the lowest to the highest."""
    mine, theirs = Stream(model, rows, keep, at_once=1), Stream(base, rows, keep, at_once=1)
    for layer in range(max(layers) + 1):
        mine.advance()
        theirs.advance()
        if layer in layers:
            pairs = zip(mine.states, theirs.states, strict=True)
            yield torch.stack([_distance(h, g) for h, g in pairs]).mean().item()


def _distance(arm_1TD: Tensor, base_1TD: Tensor) -> Tensor:
    arm_1TD, base_1TD = arm_1TD.float(), base_1TD.float()
    return ((arm_1TD - base_1TD).norm(dim=-1) / base_1TD.norm(dim=-1)).mean()
