"""The two kinds of profiler: one sees every block in the shared pass, one runs the model itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.contracts import Damage, Spec
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.blocks import Visitor, run_blocks
from tasks.progress import Bar
from tasks.registry import Component


@dataclass(frozen=True)
class Findings:
    """What one profiler found.

    Attributes:
        scores: per layer, score name -> value; empty where it gives none.
        damage: per layer; empty where it measures none.
        reference: figures of the untouched model.
    """

    scores: list[dict[str, float]] = field(default_factory=list)
    damage: list[tuple[Damage, ...]] = field(default_factory=list)
    reference: dict[str, float] = field(default_factory=dict)


class Accumulator(Visitor, Protocol):
    """A visitor that ends in findings."""

    def findings(self) -> Findings: ...


@dataclass(frozen=True)
class Subject:
    """What a profiler that runs on its own is given.

    Attributes:
        model: with every layer as in the base; to be left so.
        tokenizer: the model's.
        rows: (R, T) calibration tokens.
        strategies: those of the recipe.
        workdir: survives a kill; holds what a second attempt need not measure again.
        seed: of anything generated.
        bar: for a task of the profiler's own.
        log: a line now and then, for those who see no bar.
        scores: per layer, what the shared pass found; empty where no profiler took part in it.
    """

    model: HybridForCausalLM
    tokenizer: PreTrainedTokenizerBase
    rows: Tensor
    strategies: tuple[Spec, ...]
    workdir: Path
    seed: int
    bar: Bar
    log: Callable[[str], None] = lambda message: None
    scores: tuple[dict[str, float], ...] = ()


class Profiler(Component):
    """Measures layers. Subclass :class:`BlockProfiler` or :class:`ModelProfiler`."""

    kind: ClassVar[str] = "profiler"
    room: ClassVar[str] = "tasks.profile"

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        """Tokens of whole-model forward passes that the profiler adds to the shared pass, about."""
        return 0


class BlockProfiler(Profiler):
    """Sees every block on every row, in the one pass that all block profilers share."""

    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Accumulator:
        """A fresh visitor for a pass over ``rows`` (R, T).

        Raises:
            InputError: the rows cannot give what the profiler measures.
        """
        raise NotImplementedError


class ModelProfiler(Profiler):
    """Runs the model itself, as often as it needs."""

    def run(self, subject: Subject) -> Findings:
        """Measure; leave the model as it was."""
        raise NotImplementedError


class SharedPass:
    """One pass over the rows for all block profilers together; others are left out.

    Raises:
        InputError: the rows cannot give what a profiler measures.
    """

    def __init__(
        self, profilers: Sequence[Profiler], model: HybridForCausalLM, rows: Tensor
    ) -> None:
        self.model, self.rows = model, rows
        self.visitors = [p.begin(model, rows) for p in profilers if isinstance(p, BlockProfiler)]

    def run(self, after_batch: Callable[[int], None] = lambda rows: None) -> list[Findings]:
        """The findings, in the profilers' order; ``after_batch`` hears how many rows were done."""
        if not self.visitors:
            return []
        at_once = 1 if self.model.device.type == "cpu" else 8  # one row fills a CPU
        run_blocks(
            self.model, self.rows, self.visitors, batch_rows=at_once, after_batch=after_batch
        )
        return [visitor.findings() for visitor in self.visitors]
