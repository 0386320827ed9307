import itertools
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from choose.problems import (
    BYTES_PER_TOKEN,
    CONTEXT,
    FULL,
    NLL_RISES,
    choice,
    converted,
    covers,
    problem,
    profile,
    uniform,
)
from facts import says
from hypothesis import given, settings
from hypothesis import strategies as st

from layerwright.tasks.choose.base import Problem
from layerwright.tasks.choose.selectors.milp import Milp
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import CacheGeometry, Damage, LayerProfile, ModelProfile
from layerwright.tasks.errors import InputError

SMALLEST = CacheGeometry(kv_heads=1, head_dim=1, element_bytes=1)  # two bytes a token
HALF = 0.505  # 15 of 30 layers at 67 of 8192 tokens come to 0.5041


def test_without_recall_it_is_the_nll_rule() -> None:
    items = Milp(kv_bytes_ratio=HALF, recall_weight=0).select(problem(profile(NLL_RISES)))
    assert covers(items, 30)
    by_rise = sorted(range(30), key=lambda layer: NLL_RISES[layer])
    assert converted(items) == set(by_rise[:15])


def test_recall_keeps_the_layer_that_retrieves() -> None:
    recall = [0.0] * 30
    recall[13] = 0.97  # of the smallest NLL rises, but it finds the key
    of = problem(profile(NLL_RISES, recall))
    assert 13 in converted(Milp(kv_bytes_ratio=HALF, recall_weight=0).select(of))
    assert 13 not in converted(Milp(kv_bytes_ratio=HALF, recall_weight=0.1).select(of))


def test_a_cap_on_recall_holds_where_the_weight_would_not() -> None:
    recall = [0.1] * 30
    of = problem(profile(NLL_RISES, recall))
    items = Milp(kv_bytes_ratio=0.8, recall_weight=0, max_recall_nats=0.75).select(of)
    assert len(converted(items)) == 7  # 6.05 layers' bytes have to go; 7.5 of the cap allow it


def test_a_gain_pays_for_nothing() -> None:
    # clipped, layer 1 costs 0 and layer 0 costs 0.05; unclipped, layer 0 would look like a gain
    of = problem(profile([-0.3, 0.0, 1.0, 1.0], [0.5, 0.0, 1.0, 1.0]))
    items = Milp(kv_bytes_ratio=0.76, recall_weight=0.1).select(of)
    assert converted(items) == {1}


def test_what_need_not_be_converted_is_kept() -> None:
    of = problem(profile([-0.01, 0.0, 0.0]))
    assert converted(Milp(kv_bytes_ratio=1.0).select(of)) == set()
    assert converted(Milp(kv_bytes_ratio=0.7).select(of)) == {0}  # the smallest unclipped damage


def test_layers_that_cost_the_same_are_taken_in_order() -> None:
    of = problem(profile([0.01] * 6))
    assert converted(Milp(kv_bytes_ratio=HALF).select(of)) == {0, 1, 2}


def test_reasons_hold_the_figures() -> None:
    items = Milp(kv_bytes_ratio=0.7).select(problem(profile([0.0021, 0.5, 0.6], [0.01, 0.2, 0.3])))
    assert items[0].reason == (
        "damage 0.0021 nats language, 0.0100 nats recall; saves 12.5 MB at 8,192 tokens"
    )
    assert items[1].reason == (
        "kept: streaming (sinks 4, window 64) does damage 0.5000 nats language, "
        "0.2000 nats recall, and saves 12.5 MB at 8,192 tokens"
    )
    assert (items[0].predicted_language_nats, items[0].predicted_recall_nats) == (0.0021, 0.01)
    assert [i.predicted_kv_bytes for i in items] == [67 * BYTES_PER_TOKEN, FULL, FULL]


def test_out_of_reach_names_the_ratio_and_the_best() -> None:
    with pytest.raises(InputError, match=says("kv_bytes_ratio", "0.005", "0.0082")) as error:
        Milp(kv_bytes_ratio=0.005).select(problem(profile(NLL_RISES)))
    assert error.value.where == "choose.selector.kv_bytes_ratio"
    assert error.value.expected == "kv_bytes_ratio of at least 0.0082"
    Milp(kv_bytes_ratio=0.0082).select(problem(profile(NLL_RISES)))  # which is true


def test_out_of_reach_names_the_cap_on_recall() -> None:
    of = problem(profile([0.0] * 4, [0.2, 0.3, 0.4, 0.5]))
    with pytest.raises(InputError, match=says("0.7520", "max_recall_nats", "0.25")) as error:
        Milp(kv_bytes_ratio=0.6, max_recall_nats=0.25).select(of)
    assert "least sum of recall damages is 0.5000 nats" in error.value.message
    assert error.value.where == "choose.selector.max_recall_nats"
    Milp(kv_bytes_ratio=0.7521, max_recall_nats=0.25).select(of)
    Milp(kv_bytes_ratio=0.6, max_recall_nats=0.5).select(of)


@pytest.mark.parametrize(
    "damage",
    [(), (Damage(strategy=Spec(name="streaming", window=8), language_nats=0, recall_nats=0),)],
    ids=["none", "of other options"],
)
def test_a_missing_damage_names_the_profiler(damage: tuple[Damage, ...]) -> None:
    of = profile([0.0]).model_copy(update={"layers": (LayerProfile(layer=0, damage=damage),)})
    with pytest.raises(
        InputError, match=says("layer 0", "streaming (sinks 4, window 64)")
    ) as error:
        Milp(kv_bytes_ratio=0.5).select(problem(of))
    assert "sensitivity" in error.value.remedy


@given(
    damages=st.lists(
        st.lists(st.integers(-20, 400), min_size=2, max_size=2), min_size=2, max_size=5
    ),
    recalls=st.lists(st.integers(-20, 400), min_size=10, max_size=10),
    kv_tokens=st.lists(st.integers(0, CONTEXT), min_size=2, max_size=2),
    percent=st.integers(5, 100),
    cap=st.none() | st.integers(0, 800),
)
@settings(max_examples=60, deadline=None)
def test_no_plan_is_better(damages, recalls, kv_tokens, percent, cap) -> None:
    """Against every one of the plans, for two strategies and up to five layers."""
    specs = [Spec(name="streaming", window=w) for w in (8, 16)]
    layers = tuple(
        LayerProfile(
            layer=i,
            damage=tuple(
                Damage(
                    strategy=spec,
                    language_nats=row[j] / 1000,
                    recall_nats=recalls[2 * i + j] / 1000,
                )
                for j, spec in enumerate(specs)
            ),
        )
        for i, row in enumerate(damages)
    )
    of = choice(
        ModelProfile(model_sha256="a", text_sha256="b", tokens=1, layers=layers, geometry=SMALLEST),
        *(uniform(s, 2 * t, len(layers)) for s, t in zip(specs, kv_tokens, strict=True)),
    )

    def measures(choice: tuple[int, ...]) -> tuple[float, float, int]:
        cost = recall = kv = 0
        for i, pick in enumerate(choice):
            if pick == 2:
                kv += CONTEXT
                continue
            lost = max(recalls[2 * i + pick], 0)
            cost += max(damages[i][pick], 0) + lost / 10
            recall += lost
            kv += kv_tokens[pick]
        return cost / 1000, recall, kv

    allowed = [
        measured
        for choice in itertools.product(range(3), repeat=len(layers))
        if (measured := measures(choice))[2] * 100 <= percent * CONTEXT * len(layers)
        and (cap is None or measured[1] <= cap)
    ]
    selector = Milp(
        kv_bytes_ratio=percent / 100, max_recall_nats=None if cap is None else cap / 1000
    )
    if not allowed:
        with pytest.raises(InputError):
            selector.select(of)
        return
    windows = {None: 2, 8: 0, 16: 1}
    items = selector.select(of)
    cost, recall, kv = measures(tuple(windows[i.params.get("window")] for i in items))
    assert kv * 100 <= percent * CONTEXT * len(layers)
    assert cap is None or recall <= cap
    assert cost == pytest.approx(min(a[0] for a in allowed), abs=2e-5)
    assert items == selector.select(of)


def hard_problem() -> Problem:
    """80 layers, 8 windows whose damages fall as the window grows: the solver has to branch."""
    draw = random.Random(26)  # the solver's own debugging lines show up on this one
    windows = (64, 128, 256, 512, 1024, 2048, 4096, 6144)
    specs = [Spec(name="streaming", window=w) for w in windows]
    layers = []
    for i in range(80):
        size = math.exp(draw.gauss(-5, 1.5))
        damage = tuple(
            Damage(
                strategy=spec,
                language_nats=size * (1 - w / CONTEXT) * math.exp(draw.gauss(0, 0.1)),
                recall_nats=draw.gauss(0.02, 0.1),
            )
            for spec, w in zip(specs, windows, strict=True)
        )
        layers.append(LayerProfile(layer=i, damage=damage))
    of = ModelProfile(
        model_sha256="a", text_sha256="b", tokens=1, layers=tuple(layers), geometry=SMALLEST
    )
    return choice(of, *(uniform(s, 2 * w, 80) for s, w in zip(specs, windows, strict=True)))


def test_eighty_layers_and_eight_options() -> None:
    items = Milp(kv_bytes_ratio=0.3).select(hard_problem())
    assert covers(items, 80)
    assert sum(i.predicted_kv_bytes for i in items) <= 0.3 * 80 * 2 * CONTEXT
    assert items == Milp(kv_bytes_ratio=0.3).select(hard_problem())


def test_the_solver_leaves_stdout_alone() -> None:
    # a process of its own: C's buffer is written out when it ends
    program = (
        "from choose.test_milp import Milp, hard_problem\n"
        "Milp(kv_bytes_ratio=0.3).select(hard_problem())\n"
        "print('last')"
    )
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": f"{tests.parent}:{tests}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "last\n"


def test_what_a_layer_cannot_become_is_no_option() -> None:
    of = profile([0.001, 0.5, 0.6, 0.7])
    first = of.layers[0].model_copy(update={"damage": ()})
    of = of.model_copy(update={"layers": (first, *of.layers[1:])})
    assert converted(Milp(kv_bytes_ratio=0.76).select(problem(of))) == {1}
    bare = tuple(one.model_copy(update={"damage": ()}) for one in of.layers)
    unknown = problem(of.model_copy(update={"layers": bare}))
    with pytest.raises(InputError, match=says("damage", "layer 0")):
        Milp(kv_bytes_ratio=0.76).select(unknown)


def test_what_patches_the_layer_below_stands_on_a_feed_forward() -> None:
    linear, patched = Spec(name="linear"), Spec(name="remove", patch=True)
    costs = {0: (0.001, 0.0), 1: (0.001, 0.9), 2: (0.9, 0.0005), 3: (0.5, 0.003)}
    of = profile([0.0] * 4)
    layers = tuple(
        layer.model_copy(
            update={
                "damage": tuple(
                    Damage(strategy=spec, language_nats=nats, recall_nats=0.0)
                    for spec, nats in zip((linear, patched), costs[layer.layer], strict=True)
                )
            }
        )
        for layer in of.layers
    )
    of = of.model_copy(update={"layers": layers})
    both = choice(of, uniform(linear, 0, 4), uniform(patched, 0, 4))
    items = Milp(kv_bytes_ratio=0.5, recall_weight=0).select(both)
    # one by one the cheapest two are 0 and 2 patched, but there is nothing below layer 0
    assert [item.strategy for item in items] == ["linear", "keep", "remove", "keep"]
    most = Milp(kv_bytes_ratio=0.25, recall_weight=0).select(both)
    # 2 and 3 are one removal on the feed-forward of layer 1, which a map there would take away
    assert [item.strategy for item in most] == ["linear", "keep", "remove", "remove"]
