"""The two kinds of profiler: one sees every block in the shared pass, one runs the model itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tasks.contracts import Damage, Spec
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.blocks import Visitor
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
    """

    model: HybridForCausalLM
    tokenizer: PreTrainedTokenizerBase
    rows: Tensor
    strategies: tuple[Spec, ...]
    workdir: Path
    seed: int
    bar: Bar


class Profiler(Component):
    """Measures layers. Subclass :class:`BlockProfiler` or :class:`ModelProfiler`."""

    kind: ClassVar[str] = "profiler"
    room: ClassVar[str] = "tasks.profile"


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
