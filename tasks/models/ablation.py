"""A hybrid model with a branch of its gated recurrences left out, for as long as a block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor

from layerwright.tasks.hybrid.mixers.gated_recurrence import GatedRecurrence
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

Branch = Literal["window", "recurrence"]


@contextmanager
def ablated(
    model: HybridForCausalLM, branch: Branch, rows_B: Tensor | None = None
) -> Iterator[HybridForCausalLM]:
    """Leave a branch out of every gated recurrence; the other keeps its share.

    Hybrids of window and linear attention tend to bypass the linear branch silently: without the
    window such a model falls apart, without the recurrence it does not change (arXiv 2510.05901).

    Args:
        model: changed in place, and put back whatever happens inside; a backward pass that
            recomputes belongs inside.
        rows_B: (B,) bool, the rows of the batches that lose the branch; None for all.
    """
    mixers = [m for m in model.modules() if isinstance(m, GatedRecurrence)]
    before = [dict(mixer.shown) for mixer in mixers]
    share = 0.0 if rows_B is None else (~rows_B).float()[:, None, None, None]
    try:
        for mixer in mixers:
            mixer.shown[branch] = share
        yield model
    finally:
        for mixer, shown in zip(mixers, before, strict=True):
            mixer.shown = shown
