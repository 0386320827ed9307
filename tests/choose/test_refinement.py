"""Refinement on a model whose damages interact in a known way, against every plan there is."""

import itertools
import math
from collections.abc import Sequence

import pytest
from choose.problems import STREAMING, choice, converted, profile, uniform

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.selectors.milp import Milp
from layerwright.tasks.choose.selectors.sleb import Sleb
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.profile import MeasuredDamage

ALONE = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16, 0.17]
RECALL = [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]


class Interacting:
    """Two neighbours that are both converted cost a nat more."""

    def __init__(self) -> None:
        self.plans = self.single_changes = 0

    def of(self, layers: set[int]) -> MeasuredDamage:
        pairs = sum(1 for layer in layers if layer + 1 in layers)
        return MeasuredDamage(
            language_nats=sum(ALONE[layer] for layer in layers) + pairs,
            kl_nats=0.0,
            recall_nats=sum(RECALL[layer] for layer in layers),
        )

    def measure(self, items: Sequence[PlanItem]) -> MeasuredDamage:
        self.plans += 1
        return self.of(converted(items))

    def changes(
        self, items: Sequence[PlanItem], instead: Sequence[PlanItem]
    ) -> list[MeasuredDamage | None]:
        self.single_changes += len(instead)
        kept = converted(items)
        return [
            self.of(kept - {item.start} if item.strategy == "keep" else kept | {item.start})
            for item in instead
        ]


def problem() -> tuple[Problem, Interacting]:
    trial = Interacting()
    of = choice(profile(ALONE, RECALL), uniform(STREAMING, 0, len(ALONE)), trial=trial)
    return of, trial


def best_of(count: int, allowed: Sequence[int] = range(8)) -> float:
    trial = Interacting()
    plans = itertools.combinations(allowed, count)
    return min(trial.of(set(plan)).language_nats for plan in plans)


@pytest.mark.parametrize("from_converted", [False, True])
def test_the_best_plan_is_found_where_single_damages_mislead(from_converted: bool) -> None:
    of, trial = problem()
    options = {"kv_bytes_ratio": 0.5, "recall_weight": 0.0}
    first = Milp(**options).select(of)
    assert converted(first) == {0, 1, 2, 3}, "cheapest alone, three pairs of neighbours"
    refined = Milp(**options, refine={"from_converted": from_converted}).select(of)
    assert trial.of(converted(refined)).language_nats == pytest.approx(best_of(4))
    assert len(converted(refined)) >= 4
    assert all("whole plan measures" in i.reason for i in refined if i.strategy != "keep")
    assert any("changed by refinement" in item.reason for item in refined)
    again = Milp(**options, refine={"from_converted": from_converted}).select(problem()[0])
    assert again == refined


def test_evaluations_are_bounded_and_a_worse_plan_is_never_taken() -> None:
    for evaluations, both in itertools.product((1, 5, 9, 12, 30), (False, True)):
        of, trial = problem()
        refine = {"evaluations": evaluations, "from_converted": both}
        refined = Milp(kv_bytes_ratio=0.5, refine=refine).select(of)
        assert trial.plans + trial.single_changes <= evaluations
        first = trial.of({1, 2, 3, 4}) if 0 not in converted(refined) else trial.of({0, 1, 2, 3})
        assert trial.of(converted(refined)).language_nats <= first.language_nats


def test_measured_recall_is_held_to_the_cap() -> None:
    of, trial = problem()
    refined = Milp(kv_bytes_ratio=0.5, recall_weight=0.0, max_recall_nats=0.1, refine={}).select(of)
    assert 0 not in converted(refined)
    first = trial.of({1, 2, 3, 4}).language_nats  # cheapest alone within the cap
    # no single swap helps any more; the best plan, without neighbours, is four swaps away
    assert trial.of(converted(refined)).language_nats < first / 2


def test_recall_that_a_plan_loses_as_a_whole_is_won_back() -> None:
    class Forgetting(Interacting):
        def of(self, layers: set[int]) -> MeasuredDamage:
            known = super().of(layers)
            pairs = sum(1 for layer in layers if layer + 1 in layers)
            return known.model_copy(
                update={
                    "language_nats": known.language_nats - pairs,
                    "recall_nats": known.recall_nats + pairs,
                }
            )

    trial = Forgetting()
    of = choice(profile(ALONE, RECALL), uniform(STREAMING, 0, len(ALONE)), trial=trial)
    options = {"kv_bytes_ratio": 0.5, "recall_weight": 0.0, "max_recall_nats": 0.5}
    first, refined = Milp(**options).select(of), Milp(**options, refine={}).select(of)
    assert trial.of(converted(first)).recall_nats == 3.5, "alone, only layer 0 loses any"
    assert trial.of(converted(refined)).recall_nats <= 0.5


def test_sleb_takes_the_cheapest_by_then() -> None:
    of, _ = problem()
    items = Sleb(layers=4).select(of)
    assert converted(items) == {0, 2, 4, 6}, "greedy avoids neighbours"
    order = sorted(i.reason for i in items if i.strategy != "keep")
    assert [reason[:3] for reason in order] == ["1st", "2nd", "3rd", "4th"]
    assert math.isclose(best_of(4), 0.52)


def test_what_trying_takes_is_estimated() -> None:
    assert Milp(kv_bytes_ratio=0.5).estimate_tokens(30, 1024) == 0
    refined = Milp(kv_bytes_ratio=0.5, refine={"evaluations": 50, "rows": 2, "prompts": 0})
    assert refined.estimate_tokens(30, 1024) == 0.6 * 50 * 2048
    assert Sleb(layers=2, rows=1, row_tokens=100).estimate_tokens(30, 1024) == 0.6 * (30 + 29) * 100
