"""The base classes of profilers.

A BlockProfiler sees every block in a pass that all block profilers share. A ModelProfiler runs the
model itself.
"""

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
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visitor, run_blocks
from layerwright.tasks.passes.finished_blocks import Record
from layerwright.tasks.passes.states import Keep
from layerwright.tasks.progress import Bar
from layerwright.tasks.strategies.base import Strategy


@dataclass(frozen=True)
class Findings:
    """The results of a profiler.

    Attributes:
        scores: score name -> value for each layer; empty if the profiler gives no scores.
        damage: the damages of each layer; empty if the profiler measures no damage.
        reference: figures of the unconverted base.
    """

    scores: list[dict[str, float]] = field(default_factory=list)
    damage: list[tuple[Damage, ...]] = field(default_factory=list)
    reference: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """The inputs of a ModelProfiler.

    Attributes:
        model: the base, unconverted; the profiler must leave it unchanged.
        tokenizer: the base's tokenizer.
        rows: (R, T) calibration rows.
        strategies: the recipe's strategies.
        workdir: survives a kill; the profiler keeps partial results here, so as to resume.
        seed: seed of all generated text and random order.
        bar: progress bar; the profiler adds a task to it.
        log: writes a log line, for runs without a visible progress bar.
        scores: per layer, the scores of the shared pass; empty if no block profiler ran.
        keep: stores hidden states between layers; `tuple` keeps them in memory, and a streamed
            model's keeps them on disk.
    """

    model: HybridForCausalLM
    tokenizer: PreTrainedTokenizerBase
    rows: Tensor
    strategies: tuple[Strategy, ...]
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
        """Estimate the tokens of whole-model forward passes, without the shared pass."""
        return 0

    def check_rows(self, rows: int, row_tokens: int, *, fits: bool) -> None:
        """Check that the profile has enough text for this profiler.

        Args:
            rows: number of calibration rows.
            row_tokens: tokens of each row.
            fits: whether a strategy of the recipe is fitted on calibration rows.

        Raises:
            InputError: too few rows or tokens; names the field of the profile.
        """


class BlockProfiler(Profiler):
    """Sees every block on every row, in a pass that all block profilers share."""

    @abstractmethod
    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        """Return a new visitor for a single block in a pass over ``rows`` (R, T).

        Raises:
            InputError: the rows are too few or too short for this profiler.
        """

    def findings(self, records: Sequence[Record]) -> Findings:
        """Compute the results from the visitors' records; by default the records are the scores.

        Args:
            records: a record for each block, in order.
        """
        return Findings(
            scores=[{name: value.item() for name, value in record.items()} for record in records]
        )


class ModelProfiler(Profiler):
    """Runs the model itself, as often as it needs."""

    @abstractmethod
    def run(self, subject: Subject) -> Findings:
        """Measure the model, and leave it unchanged."""


class SharedPass:
    """A pass over the rows that runs the block profilers among ``profilers`` together.

    Raises:
        InputError: the rows are too few or too short for a profiler.
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
        """Return the results in the order of the profilers. For the arguments see `run_blocks`."""
        if not self.profilers:
            return []
        visitors = [partial(p.begin, self.model, self.rows) for p in self.profilers]
        records = run_blocks(self.model, self.rows, visitors, keep=keep, folder=folder, after=after)
        return [p.findings(blocks) for p, blocks in zip(self.profilers, records, strict=True)]
