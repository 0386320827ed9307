"""Gromov's rule: the run of blocks with the least angle between its ends (arXiv 2403.17887)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, Selector, named
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.components import build
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import LayerProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.strategies.base import Strategy

PROFILER = "angular_distance"


class Angular(Selector):
    """Convert the run of ``layers`` neighbouring layers with the least angular distance.

    l* = argmin over l of d(x_l, x_{l + n}), n = ``layers`` (arXiv 2403.17887, eq. 6), among the
    runs all of whose layers can become the recipe's first strategy. Ties go to the lower run.

    Attributes:
        layers: the length n of the run.
        join: the run becomes one thing, such as one map for `linear`, instead of one for each
            layer; for strategies that join layers.
    """

    name: ClassVar[str] = "angular"

    layers: int = Field(ge=1)
    join: bool = False

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        if self.join and not build(Strategy, candidate.spec).joins:
            raise InputError(
                f"{candidate.spec.name} does not join layers: each becomes one by itself",
                where="choose.selector.join",
                expected="join: false, or a first strategy such as linear or remove",
            )
        distances = self._distances(problem, candidate)
        first = min(distances, key=lambda layer: (distances[layer], layer))
        run = problem.layers[first : first + self.layers]
        words = (
            f"layers {first} to {first + self.layers - 1} have the least angular distance of all "
            f"runs of {self.layers}: {distances[first]:.4f}"
        )
        below = [problem.kept(p, f"kept: {words}") for p in problem.layers[:first]]
        above = [problem.kept(p, f"kept: {words}") for p in problem.layers[first + self.layers :]]
        if self.join:
            return (*below, problem.converted_run(run, candidate, words), *above)
        return (*below, *(problem.converted(p, candidate, words) for p in run), *above)

    def _distances(self, problem: Problem, candidate: Candidate) -> dict[int, float]:
        """Angular distance of each possible run, by its first layer."""
        total = len(problem.layers)
        require_layers(problem, self.layers, total)
        able = [problem.possible(layer, candidate) for layer in problem.layers]
        firsts = [
            layer
            for layer in problem.layers[: total - self.layers + 1]
            if all(able[layer.layer : layer.layer + self.layers])
        ]
        if not firsts:
            raise InputError(
                f"in every run of {self.layers} layers there is one that cannot become "
                f"{named(candidate.spec)}",
                where="choose.selector.layers",
                expected="a shorter run, or another strategy first",
            )
        return {layer.layer: self._distance(problem, layer) for layer in firsts}

    def _distance(self, problem: Problem, layer: LayerProfile) -> float:
        score = f"{PROFILER}_{self.layers}"
        if score not in layer.scores and f"{PROFILER}_1" in problem.layers[-1].scores:
            raise InputError(
                f"the profile has no angular distance of runs of {self.layers}",
                where="choose.selector.layers",
                remedy=f"add {self.layers} to the `lengths` of the profiler {PROFILER}",
            )
        return problem.score(layer, score, PROFILER)
