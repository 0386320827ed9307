"""The two kinds of profiler: one sees every block in the shared pass, one runs the model itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visitor, run_blocks
from layerwright.tasks.passes.finished_blocks import Record
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.progress import Bar


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
        keep: where hidden states wait between layers; `tuple` unless the model is streamed.
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
    keep: Keep = tuple


class Profiler(Component):
    """Measures layers. Subclass :class:`BlockProfiler` or :class:`ModelProfiler`."""

    kind: ClassVar[str] = "profiler"
    room: ClassVar[str] = "layerwright.tasks.profile.profilers"

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        """Tokens of whole-model forward passes that the profiler adds to the shared pass, about."""
        return 0

    def check_rows(self, rows: int, row_tokens: int, *, fits: bool) -> None:
        """Refuse a profile that has too little text for what the profiler measures.

        Args:
            rows: of the profile.
            row_tokens: of each of them.
            fits: whether a strategy of the recipe is fitted on text.

        Raises:
            InputError: with the field of the profile.
        """


class BlockProfiler(Profiler):
    """Sees every block on every row, in the one pass that all block profilers share."""

    @abstractmethod
    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        """A fresh visitor for one block in a pass over ``rows`` (R, T).

        Raises:
            InputError: the rows cannot give what the profiler measures.
        """

    def findings(self, records: Sequence[Record]) -> Findings:
        """From the visitors' records of all blocks; as they are, where they hold the scores."""
        return Findings(
            scores=[{name: value.item() for name, value in one.items()} for one in records]
        )


class ModelProfiler(Profiler):
    """Runs the model itself, as often as it needs."""

    @abstractmethod
    def run(self, subject: Subject) -> Findings:
        """Measure; leave the model as it was."""


class SharedPass:
    """One pass over the rows for all block profilers together; others are left out.

    Raises:
        InputError: the rows cannot give what a profiler measures.
    """

    def __init__(
        self, profilers: Sequence[Profiler], model: HybridForCausalLM, rows: Tensor
    ) -> None:
        self.model, self.rows = model, rows
        self.profilers = [p for p in profilers if isinstance(p, BlockProfiler)]
        for profiler in self.profilers:
            profiler.begin(model, rows)

    def run(
        self,
        keep: Keep = tuple,
        folder: Path | None = None,
        after: Callable[[int], None] = lambda visits: None,
    ) -> list[Findings]:
        """The findings, in the profilers' order; for the rest see `run_blocks`."""
        if not self.profilers:
            return []
        visitors = [partial(p.begin, self.model, self.rows) for p in self.profilers]
        records = run_blocks(self.model, self.rows, visitors, keep=keep, folder=folder, after=after)
        return [p.findings(found) for p, found in zip(self.profilers, records, strict=True)]
