"""Ablation: runs a hybrid model without one branch of its gated recurrences."""

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
    """Switches one branch of every gated recurrence off within the block.

    The other branch keeps its share. A hybrid that bypasses its linear branch fails without the
    window, but does not change without the recurrence (arXiv 2510.05901). A backward pass that
    recomputes activations must run inside the block.

    Args:
        rows_B: (B,) bool, the rows of each batch to change; None for all rows.
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
