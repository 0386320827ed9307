import pytest
from choose.problems import BYTES_PER_TOKEN, FULL, converted, covers, problem, profile
from facts import says
from pydantic import ValidationError

from layerwright.tasks.choose.selectors.lightransfer import LightTransfer
from layerwright.tasks.errors import InputError

LAZY = [0.5, 0.9, 0.7, 0.99, 0.7, 0.6]
PROBLEM = problem(profile([0.01] * 6, lazy=LAZY))


def test_the_laziest_are_converted_and_ties_go_to_the_lower_layer() -> None:
    items = LightTransfer(layers=3).select(PROBLEM)
    assert covers(items, 6)
    assert converted(items) == {1, 2, 3}


def test_reasons_hold_rank_and_ratio() -> None:
    items = LightTransfer(layers=1).select(PROBLEM)
    assert items[3].reason == "lazy ratio 0.990, 1st of 6; saves 12.5 MB at 8,192 tokens"
    assert items[1].reason.startswith("lazy ratio 0.900, 2nd of 6; ")


@pytest.mark.parametrize(("ratio", "count"), [(1.0, 0), (0.99, 1), (0.505, 3), (0.5, 4), (0.4, 4)])
def test_a_ratio_is_reached_with_no_layer_too_many(ratio: float, count: int) -> None:
    items = LightTransfer(kv_bytes_ratio=ratio).select(PROBLEM)
    assert len(converted(items)) == count
    reached = sum(i.predicted_kv_bytes for i in items) / (6 * FULL)
    assert reached <= ratio < reached + (FULL - 67 * BYTES_PER_TOKEN) / (6 * FULL)


def test_a_ratio_met_exactly_costs_no_layer_more() -> None:
    # 10 layers that save all their bytes: 0.6 is 4 of them, though 1 - 0.6 is not 0.4 exactly
    of = problem(profile([0.0] * 10, lazy=[0.5] * 10), kv_bytes=0)
    assert len(converted(LightTransfer(kv_bytes_ratio=0.6).select(of))) == 4


def test_the_damage_is_carried_where_it_was_measured() -> None:
    items = LightTransfer(layers=1).select(PROBLEM)
    assert items[3].predicted_language_nats == 0.01


def test_out_of_reach_names_the_best() -> None:
    with pytest.raises(InputError, match=r"it is 0\.0082 with all 6"):
        LightTransfer(kv_bytes_ratio=0.001).select(PROBLEM)
    with pytest.raises(InputError, match=says("1.0000")):
        LightTransfer(kv_bytes_ratio=0.9).select(problem(PROBLEM.profile, kv_bytes=FULL))


def test_more_layers_than_there_are() -> None:
    with pytest.raises(InputError, match="cannot convert 7 layers: 6 of"):
        LightTransfer(layers=7).select(PROBLEM)


def test_a_missing_score_names_the_profiler() -> None:
    with pytest.raises(InputError, match=says("lazy_ratio", "layer 0")) as error:
        LightTransfer(layers=1).select(problem(profile([0.0])))
    assert "laziness" in error.value.remedy


@pytest.mark.parametrize("options", [{}, {"layers": 1, "kv_bytes_ratio": 0.5}])
def test_exactly_one_of_layers_and_ratio(options: dict) -> None:
    with pytest.raises(ValidationError, match=says("one", "layers", "kv_bytes_ratio")):
        LightTransfer(**options)
