"""Local attention: a span of tokens for each layer or head, and a correction for the rest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.strategies.base import LayerSpec, Strategy
from layerwright.tasks.strategies.fitting.stretch import Stretch

Span = Annotated[int, Field(ge=1)]
_SCORE = re.compile(r"covered_mass_(\d+)(?:\.head_(\d+))?")


def score_name(span: int, head: int | None = None) -> str:
    """Name of the score that says how much of attention a span covers, in a layer or in a head."""
    return f"covered_mass_{span}" + ("" if head is None else f".head_{head}")


def smallest_span(mass_by_span: Mapping[int, float], tau: float) -> int:
    """The smallest span that covers the share ``tau``; the widest measured where none does."""
    enough = [span for span, mass in mass_by_span.items() if mass >= tau]
    return min(enough) if enough else max(mass_by_span)


class Local(Strategy):
    """The layer attends to ``sinks`` and a span of last tokens, and may correct for the rest.

    With ``correction`` "block_mean" the span is rounded down to a block's start, and each block of
    ``block`` positions before it is one more key, the mean of its keys and values, with the log of
    its count added to its score: o = (e^lw o_w + e^lf o_f) / (e^lw + e^lf). Weights are untouched.
    The cache holds the spans of the heads and, for each block, one fp32 key and value.

    The correction is off by default because it must be chosen by layer. SmolLM2-135M, all 30 layers
    at once, span 64, block 32, sinks 4, perplexity on 4 rows of 1024 tokens of WikiText-2 (dense
    23.2): rotated means 41.4, unrotated 41.7 (block 16: 43.0 and 43.2), and a plain span that sees
    as many keys by itself, 80, 37.7. The harm shows in layer 0, where the correction takes the
    relative error of attention's output from 0.11 to 0.45 (calibration text); in layers 3 to 29 it
    lowers it, and with these alone corrected, the others plain, perplexity is 37.5.

    Attributes:
        spans: for all key/value heads, or one for each, the query's own position included; or from
            the profile, the smallest whose covered mass reaches ``tau``, by "layer" or by "head".
        tau: share of attention that such a span covers (the profiler `covered_span` measures it).
        sinks: first tokens that stay visible.
        correction: "none" leaves out what lies before the span.
        block: positions of a block.
        key_mean: whether keys are averaged after the rotation, or before it and then turned to
            where the middle of their block stands.
        widen: a query whose span covers less than this share, by the blocks' estimate, attends to
            everything; all keys are kept then, those outside the span in host memory.
        ramp: with no correction, the span ends in a slope of so many tokens, and the length before
            it is trained (arXiv 1905.07799); the checkpoint has one more tensor for it.
    """

    name: ClassVar[str] = "local"

    spans: Span | Literal["layer", "head"] | Annotated[tuple[Span, ...], Field(min_length=1)] = 256
    tau: float = Field(default=0.95, gt=0, le=1)
    sinks: int = Field(default=4, ge=0)
    correction: Literal["none", "block_mean"] = "none"
    block: int = Field(default=32, ge=1)
    key_mean: Literal["rotated", "unrotated"] = "rotated"
    widen: float | None = Field(default=None, gt=0, lt=1)
    ramp: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _options_go_together(self) -> Local:
        if self.widen is not None and self.correction == "none":
            raise ValueError("`widen` estimates what a span misses from `correction: block_mean`")
        if self.ramp is None:
            return self
        if self.correction != "none":
            raise ValueError("`ramp` is for training a span alone: it needs `correction: none`")
        spans = (self.spans,) if isinstance(self.spans, int) else self.spans
        if not isinstance(spans, str) and self.ramp > min(spans):
            raise ValueError(f"`ramp` must not exceed the least span, {min(spans)}")
        return self

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        if isinstance(self.spans, str):
            raise InputError(
                "the spans of `local` are not known before a profile is read",
                where="strategies.local.spans",
                expected="a number, or one for each key/value head",
                remedy="choose a plan from a profile that has the profiler `covered_span`",
            )
        spans = self.spans if isinstance(self.spans, int) else list(self.spans)
        mixer = {
            "kind": "local",
            "spans": spans,
            "sinks": self.sinks,
            "correction": self.correction,
        }
        if self.correction == "none":
            mixer |= {"ramp": self.ramp}
        else:
            mixer |= {"block": self.block, "key_mean": self.key_mean, "widen": self.widen}
        return {**base_spec, "mixer": mixer}

    def resolved(self, scores: Mapping[str, float]) -> Local:
        """With the spans that one layer's profile asks for."""
        if not isinstance(self.spans, str):
            return self
        masses: dict[int | None, dict[int, float]] = {}
        for name, mass in scores.items():
            if found := _SCORE.fullmatch(name):
                head = None if found[2] is None else int(found[2])
                masses.setdefault(head, {})[int(found[1])] = mass
        if not masses:
            raise InputError(
                "the profile does not say how much of attention a span covers",
                where="profile.profilers",
                expected="the profiler `covered_span`",
                remedy="add it, or give `local` its spans",
            )
        if self.spans == "layer":
            return self.model_copy(update={"spans": smallest_span(masses[None], self.tau)})
        heads = sorted(head for head in masses if head is not None)
        spans = tuple(smallest_span(masses[head], self.tau) for head in heads)
        return self.model_copy(update={"spans": spans})

    @property
    def fits(self) -> bool:
        return self.ramp is not None

    def fit(self, stretch: Stretch) -> dict[str, Tensor]:
        """The lengths of soft spans at their longest, from where training shortens them."""
        heads = stretch.model.config.num_key_value_heads
        return {f"model.layers.{stretch.start}.self_attn.span": torch.ones(heads)}
