"""Gromov's rule: convert the run of blocks with the least angular distance (arXiv 2403.17887)."""

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, Selector, named
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import LayerProfile
from layerwright.tasks.errors import InputError

PROFILER = "angular_distance"


class Angular(Selector):
    """Convert the run of ``layers`` consecutive layers with the least angular distance.

    l* = argmin over l of d(x_l, x_{l + n}), n = ``layers`` (arXiv 2403.17887, eq. 6), among the
    runs whose layers can all get the recipe's first strategy. Ties go to the lower run.
    """

    name = "angular"
    layers: int = Field(ge=1)  # the length n of the run
    # convert the run into a single block (linear: a single map), if the strategy joins layers
    join: bool = False

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        if self.join and not candidate.strategy.joins:
            raise InputError(
                f"{candidate.strategy.name} does not join layers",
                where="choose.selector.join",
                expected="join: false, or linear or remove as the first strategy",
            )
        distances = self._distances(problem, candidate)
        first = min(distances, key=lambda layer: (distances[layer], layer))
        run = problem.layers[first : first + self.layers]
        reason = (
            f"layers {first} to {first + self.layers - 1} have the least angular distance of all "
            f"runs of {self.layers}: {distances[first]:.4f}"
        )
        kept = [problem.kept(layer, f"kept: {reason}") for layer in problem.layers]
        parts = [run] if self.join else [run[i : i + 1] for i in range(self.layers)]
        converted = [problem.converted(part, candidate, reason) for part in parts]
        return (*kept[:first], *converted, *kept[first + self.layers :])

    def _distances(self, problem: Problem, candidate: Candidate) -> dict[int, float]:
        """Angular distance of each convertible run, by its first layer."""
        total = len(problem.layers)
        require_layers(problem, self.layers, total)
        possible = [problem.possible(layer, candidate) for layer in problem.layers]
        starts = range(total - self.layers + 1)
        firsts = [first for first in starts if all(possible[first : first + self.layers])]
        if not firsts:
            raise InputError(
                f"every run of {self.layers} layers has a layer that cannot become "
                f"{named(candidate.spec)}",
                where="choose.selector.layers",
                expected="a shorter run, or another first strategy",
            )
        return {first: self._distance(problem, problem.layers[first]) for first in firsts}

    def _distance(self, problem: Problem, layer: LayerProfile) -> float:
        score = f"{PROFILER}_{self.layers}"
        if score not in layer.scores and f"{PROFILER}_1" in problem.layers[-1].scores:
            raise InputError(
                f"the profile has no angular distance of runs of {self.layers}",
                where="choose.selector.layers",
                remedy=f"add {self.layers} to the `lengths` of the profiler {PROFILER}",
            )
        return problem.score(layer, score, PROFILER)
