"""SLEB's rule: convert one layer after another, each time the one that costs least by then."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, Selector, TrialOptions, named
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage


class Sleb(TrialOptions, Selector):
    """Greedy by the whole model's loss (arXiv 2402.09025, algorithm 1), for any one strategy.

    In each of ``layers`` rounds every layer that is left is converted alone within the model as
    converted so far, and the one with the smallest NLL on the calibration rows is taken. The paper
    removes blocks. All converted layers become the recipe's first strategy.
    """

    name: ClassVar[str] = "sleb"

    layers: int = Field(ge=0)
    prompts: int = Field(default=0, ge=0)  # the rule does not ask for recall

    @property
    def tries(self) -> TrialOptions | None:
        return self

    def estimate_tokens(self, layers: int, row_tokens: int) -> int:
        tried = sum(layers - done for done in range(self.layers))
        return round(0.6 * tried * self.tokens(row_tokens))

    def select(self, problem: Problem) -> tuple[PlanItem, ...]:
        candidate = problem.candidates[0]
        possible = [p.layer for p in problem.layers if problem.possible(p, candidate)]
        require_layers(problem, self.layers, len(possible))
        items = [problem.kept(layer, "never the cheapest one") for layer in problem.layers]
        for number in range(1, self.layers + 1):
            layer, damage = self._cheapest(problem, candidate, items, possible)
            possible.remove(layer)
            profile = problem.layers[layer]
            reason = f"number {number} to go: {damage.language_nats:.4f} nats language by then"
            reason = f"{reason}; {problem.saving(profile, candidate)}"
            items[layer] = problem.converted(profile, candidate, reason)
        return tuple(items)

    def _cheapest(
        self, problem: Problem, candidate: Candidate, items: list[PlanItem], possible: list[int]
    ) -> tuple[int, MeasuredDamage]:
        assert problem.trial is not None, "the node gives a trial to selectors that try"
        words = f"tried as {named(candidate.spec)}"
        instead = [problem.converted(problem.layers[i], candidate, words) for i in possible]
        found = problem.trial.changes(items, instead)
        known = [(i, one) for i, one in zip(possible, found, strict=True) if one is not None]
        return min(known, key=lambda pair: (pair[1].language_nats, pair[0]))
