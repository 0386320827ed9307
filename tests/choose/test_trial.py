"""Plans tried on a real tiny model: whole and changed in one place, and not twice."""

from pathlib import Path

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.choose.trial import Trial
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.fitting import convert_in_place
from layerwright.tasks.passes.likelihood import token_nll
from layerwright.tasks.passes.states import Spill
from layerwright.tasks.probes.recall import probe_prompts
from layerwright.tasks.probes.yardstick import Yardstick
from layerwright.tasks.strategies.specs import assignments_of

ROWS = tiny_tokens(4, 64)
PROBES = probe_prompts(("passkey",), byte_tokenizer(), 2, 440, 5, keep_out_tokens=8)
WINDOW = {"sinks": 2, "window": 6}


def item(start: int, strategy: str = "keep", stop: int | None = None, **params) -> PlanItem:
    return PlanItem(start=start, stop=stop or start + 1, strategy=strategy, params=params)


MIXED = [item(0, "streaming", **WINDOW), item(1, "linear", stop=3), item(3)]


def base():
    return tiny_hybrid(LAYER_SPECS["full"], max_position_embeddings=2048)


def trial(folder: Path, load=base) -> Trial:
    return Trial(load, lambda model: Yardstick(model, ROWS[:2], PROBES), lambda: ROWS, folder)


@torch.no_grad()
def nll_of(items: list[PlanItem]) -> float:
    model = base()
    convert_in_place(model, assignments_of(items), lambda: ROWS)
    return token_nll(model(ROWS[:2]).logits, ROWS[:2]).double().mean().item()


def test_a_whole_plan_is_measured_as_converted(tmp_path: Path) -> None:
    found = trial(tmp_path).measure(MIXED)
    whole = nll_of(MIXED) - nll_of([item(0, stop=LAYERS)])
    assert found.language_nats == pytest.approx(whole, abs=1e-5)
    assert found.kl_nats > 0
    assert set(found.probes) == {"passkey"}


def test_a_base_larger_than_memory_is_tried_alike(tmp_path: Path) -> None:
    instead = [item(0), item(1, "linear"), item(3, "streaming", **WINDOW)]
    resident = trial(tmp_path / "resident")
    base().save_pretrained(tmp_path / "base")
    with load_streamed(tmp_path / "base", resident_layers=1) as streamed:
        keep = Spill(tmp_path / "states")
        bounded = Trial(
            lambda: streamed.model,
            lambda model: Yardstick(model, ROWS[:2], PROBES, keep),
            lambda: ROWS,
            tmp_path / "bounded",
        )
        assert bounded.measure(MIXED) == resident.measure(MIXED)
        assert bounded.changes(MIXED, instead[::2]) == resident.changes(MIXED, instead[::2])
        kept = [item(layer) for layer in range(LAYERS)]
        assert bounded.changes(kept, instead) == resident.changes(kept, instead)


def test_changes_within_a_plan_are_those_of_the_changed_plan(tmp_path: Path) -> None:
    plan = [item(0, "streaming", **WINDOW), item(1, "drop_attention"), item(2), item(3)]
    instead = [item(0), item(1), item(1, "linear"), item(3, "streaming", **WINDOW)]
    found = trial(tmp_path).changes(plan, instead)
    before = nll_of([item(0, stop=LAYERS)])
    for change, damage in zip(instead, found, strict=True):
        changed = [change if part.start == change.start else part for part in plan]
        assert damage.language_nats == pytest.approx(nll_of(changed) - before, abs=1e-5)


def test_what_cannot_be_is_none_and_a_run_is_given_back_whole(tmp_path: Path) -> None:
    on = trial(tmp_path)
    impossible, given_back = on.changes(
        [item(0), item(1, "linear", stop=3), item(3)],
        [item(0, "remove", patch=True), item(1, stop=3)],
    )
    assert impossible is None
    assert given_back.language_nats == pytest.approx(0, abs=1e-6)


def test_a_change_is_fitted_on_the_base_s_own_layer(tmp_path: Path) -> None:
    """What stands in its place, such as a map, has no keys to take a decay from."""
    plan = [item(0, "streaming", **WINDOW), item(1, "linear"), item(2), item(3)]
    recurrent = item(1, "gated_recurrence", gate="gla", window=6, decay="statistics")
    (found,) = trial(tmp_path).changes(plan, [recurrent])
    changed = [plan[0], recurrent, *plan[2:]]
    whole = nll_of(changed) - nll_of([item(0, stop=LAYERS)])
    assert found.language_nats == pytest.approx(whole, abs=1e-5)


def test_nothing_is_measured_twice_and_the_base_stays(tmp_path: Path) -> None:
    first = trial(tmp_path)
    instead = [item(3, "streaming", **WINDOW)]
    found = first.measure(MIXED), first.changes(MIXED, instead)
    assert {spec["mixer"]["kind"] for spec in first.base.config.layer_specs} == {"full"}

    def never():
        raise AssertionError("the model is loaded again")

    second = trial(tmp_path, never)
    assert (second.measure(MIXED), second.changes(MIXED, instead)) == found
