"""Lazy layers found anew for each prompt, while it is read."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.strategies.base import LayerSpec, Strategy


class PrefillSelection(Strategy):
    """The layer competes with all others of this strategy for ``full_layers`` full caches.

    A prompt is read with full attention; of the layers that the plan gives to this strategy, the
    ``full_layers`` with the smallest lazy ratio over the prompt's last ``last_queries`` queries
    keep all its keys, the others ``sinks`` and ``window``, for the tokens to come. Weights are
    untouched, and so is a pass over text without a cache, such as perplexity's: what this costs
    shows in generation alone. LightTransfer's test mode (arXiv 2410.13846), with the defaults of
    its section 4.

    ``full_layers`` None, the default, is half of the competing layers, rounded up: the paper's
    choice on LongBench (it takes three quarters for needle tasks), and one that can be written down
    before a plan says how many layers compete.
    """

    name: ClassVar[str] = "prefill_selection"

    full_layers: int | None = Field(default=None, ge=0)
    sinks: int = Field(default=4, ge=0)
    window: int = Field(default=1020, ge=1)
    last_queries: int = Field(default=32, ge=1)

    def layer_spec(self, base_spec: LayerSpec) -> LayerSpec:
        return {**base_spec, "mixer": {"kind": self.name, **self.model_dump()}}
