"""The base classes of profilers: of every block, in a shared pass, or of the model itself."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import torch
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.components import Component
from layerwright.tasks.contracts.profile import Damage
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.blocks import Visit, Visitor, run_blocks
from layerwright.tasks.passes.states import Keep, Record
from layerwright.tasks.progress import Bar
from layerwright.tasks.strategies.base import Strategy

Lengths = Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)]


@dataclass(frozen=True)
class Findings:
    """Results per layer (empty if the profiler has none), and figures of the unconverted base."""

    scores: list[dict[str, float]] = field(default_factory=list)
    damage: list[tuple[Damage, ...]] = field(default_factory=list)
    reference: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Subject:
    """The inputs of a ModelProfiler."""

    model: HybridForCausalLM  # the base, unconverted; the profiler must leave it unchanged
    tokenizer: PreTrainedTokenizerBase
    rows: Tensor  # (R, T) calibration rows
    strategies: tuple[Strategy, ...]
    workdir: Path  # survives a kill; the profiler keeps partial results here, so as to resume
    seed: int  # seed of all generated text and random order
    bar: Bar  # progress bar; the profiler adds a task to it
    log: Callable[[str], None] = lambda message: None
    scores: tuple[dict[str, float], ...] = ()  # of each layer, in the shared pass
    keep: Keep = tuple  # keeps hidden states: in memory, or of a streamed model on disk


class Profiler(Component):
    """Measures layers. Subclass :class:`BlockProfiler` or :class:`ModelProfiler`."""

    kind: ClassVar[str] = "profiler"
    room: ClassVar[str] = "layerwright.tasks.profile.profilers"

    def estimate_tokens(self, layers: int, strategies: int) -> int:
        """Estimate the tokens of whole-model forward passes, without the shared pass."""
        return 0

    def check_rows(self, rows: int, row_tokens: int, *, fits: bool) -> None:
        """Check that the profile has enough text for this profiler. Else an InputError names its
        field. ``fits``: a strategy is fitted on calibration rows.
        """


class BlockProfiler(Profiler):
    """Sees every block on every row, in a pass that all block profilers share."""

    @abstractmethod
    def begin(self, model: HybridForCausalLM, rows: Tensor) -> Visitor:
        """A new visitor for a single block in a pass over ``rows`` (R, T); InputError if the rows
        are too few or too short for this profiler.
        """

    def findings(self, records: Sequence[Record]) -> Findings:
        """The results from the visitors' record of each block; by default these are the scores."""
        return Findings([{key: v.item() for key, v in record.items()} for record in records])


class MeansByHead:
    """A visitor: means of scores over rows, for the layer and for each key/value head.

    Args:
        names: of the S scores.
        scores: computes them for a visit: (S, B, H, Q), of B rows, H query heads and Q queries.
    """

    def __init__(self, names: Sequence[str], scores: Callable[[Visit], Tensor]) -> None:
        self.names, self.scores = names, scores
        self.sums, self.rows = torch.zeros((), dtype=torch.float64), 0

    def visit(self, visit: Visit) -> None:
        by_head = self.scores(visit).unflatten(2, (visit.keys.shape[1], -1)).mean((3, 4))
        self.sums = self.sums + by_head.sum(1, dtype=torch.float64).cpu()
        self.rows += len(visit.ids)

    def record(self) -> Record:
        record = {}
        for name, by_head in zip(self.names, self.sums / self.rows, strict=True):
            record[name] = by_head.mean()
            record |= {f"{name}.head_{head}": value for head, value in enumerate(by_head)}
        return record


class ModelProfiler(Profiler):
    """Runs the model itself, as often as it needs."""

    @abstractmethod
    def run(self, subject: Subject) -> Findings:
        """Measure the model, and leave it unchanged."""


class SharedPass:
    """A pass over the rows that runs the block profilers among ``profilers`` together; InputError
    if the rows are too few or too short for a profiler.
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
        """The results in the order of the profilers. For the arguments see `run_blocks`."""
        if not self.profilers:
            return []
        visitors = [partial(p.begin, self.model, self.rows) for p in self.profilers]
        records = run_blocks(self.model, self.rows, visitors, keep=keep, folder=folder, after=after)
        return [p.findings(blocks) for p, blocks in zip(self.profilers, records, strict=True)]
