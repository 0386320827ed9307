"""SLEB's rule: convert layers one by one, each time the layer that raises the NLL least."""

from pydantic import Field

from layerwright.tasks.choose.base import Candidate, Problem, Selector, TrialOptions, named, ordinal
from layerwright.tasks.choose.ranking import require_layers
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage


class Sleb(TrialOptions, Selector):
    """Greedy selection by the whole model's NLL (arXiv 2402.09025, algorithm 1).

    Each of ``layers`` rounds tries to convert every unconverted layer of the current model, and
    converts the layer that gives the smallest NLL on the calibration rows. The paper removes
    blocks; here all converted layers get the recipe's first strategy.
    """

    name = "sleb"
    layers: int = Field(ge=0)
    prompts: int = Field(default=0, ge=0)  # the rule does not use recall

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
        items = [problem.kept(layer, "never the layer with least NLL") for layer in problem.layers]
        for number in range(1, self.layers + 1):
            layer, damage = self._cheapest(problem, candidate, items, possible)
            possible.remove(layer)
            run = problem.layers[layer : layer + 1]
            reason = f"{ordinal(number)} converted: {damage.language_nats:.4f} nats language so far"
            reason = f"{reason}; {problem.saving(run, candidate)}"
            items[layer] = problem.converted(run, candidate, reason)
        return tuple(items)

    def _cheapest(
        self, problem: Problem, candidate: Candidate, items: list[PlanItem], possible: list[int]
    ) -> tuple[int, MeasuredDamage]:
        assert problem.trial is not None, "the step gives a trial to selectors that need one"
        reason = f"tried as {named(candidate.spec)}"
        instead = [problem.converted([problem.layers[i]], candidate, reason) for i in possible]
        damages = problem.trial.changes(items, instead)
        measured = [(i, damage) for i, damage in zip(possible, damages, strict=True) if damage]
        return min(measured, key=lambda pair: (pair[1].language_nats, pair[0]))
