"""The user's own prompts: every way to match, lengths, repetition, and what is refused."""

import pytest
from tiny_text import write_items

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.generation import repetition
from layerwright.tasks.evaluate.metrics.prompts import Prompts
from layerwright.tasks.probes.text_match import rouge_l

ROWS = [
    {"prompt": "Once upon a time", "reference": "there was a king", "slice": "tales"},
    {"prompt": "The fog lay", "references": ["over the fields", "low"]},
    {"prompt": "Dear Sir", "reference": "thank you for your letter"},
]
METRIC = Prompts(text="mine", max_new_tokens=20, at_once=2)


@pytest.fixture
def mine(tmp_path):
    return write_items(tmp_path / "mine", ROWS)


def test_repetition_is_the_share_of_ngrams_that_stood_before() -> None:
    assert repetition([1, 2, 3, 4, 5, 6]) == 0
    assert repetition([7] * 10) == pytest.approx(1 - 1 / 7)
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4, 9]) == pytest.approx(1 - 5 / 6)
    assert repetition([1, 2, 3]) == 0


def test_both_arms_are_asked_the_same_and_judged_by_their_references(
    make_arms, hybrid, mine
) -> None:
    arms = make_arms([METRIC], {"mine": mine}, candidate=hybrid(streaming=(0, 1)))
    figures = {(f.measurement.metric, f.measurement.arm): f for f in METRIC.measure(arms)}
    assert {name for name, _ in figures} == set(METRIC.names())
    for arm in ("base", "candidate"):
        figure = figures["generation.mine", arm]
        said = [item.words.said for item in figure.items]
        assert [item.value for item in figure.items] == pytest.approx(
            [
                rouge_l(said[0], ["there was a king"]),
                rouge_l(said[1], ["over the fields", "low"]),
                rouge_l(said[2], ["thank you for your letter"]),
            ]
        )
        assert [item.slice for item in figure.items] == ["tales", "", ""]
        assert [item.words.prompt for item in figure.items] == [row["prompt"] for row in ROWS]
        assert figure.items[1].words.expected == "over the fields"
    assert figures["length_ratio.mine", "base"].measurement.value == 1
    ratio = figures["length_ratio.mine", "candidate"]
    written = sum(item.value * item.weight for item in ratio.items)
    asked = sum(item.weight for item in ratio.items)
    assert ratio.measurement.value == pytest.approx(written / asked)
    assert ratio.measurement.count == asked == 60  # all three to their 20 tokens


def test_without_references_the_base_is_the_reference(make_arms, hybrid, tmp_path) -> None:
    folder = write_items(tmp_path / "bare", [{"prompt": row["prompt"]} for row in ROWS])
    metric = Prompts(text="bare", match="agreement", max_new_tokens=24)
    arms = make_arms([metric], {"bare": folder}, candidate=hybrid((0, 1, 2, 3)), champion=hybrid())
    figures = {
        f.measurement.arm: f
        for f in metric.measure(arms)
        if f.measurement.metric == "generation.bare"
    }
    assert figures["base"].measurement.value == figures["champion"].measurement.value == 1
    assert figures["candidate"].measurement.value < 1
    assert all(item.words.expected == "" for item in figures["base"].items)


def test_texts_are_kept_only_where_they_may_be(make_arms, hybrid, mine) -> None:
    metric = METRIC.model_copy(update={"keep_texts": False})
    arms = make_arms([metric], {"mine": mine}, candidate=hybrid(streaming=(0,)))
    assert all(item.words is None for figure in metric.measure(arms) for item in figure.items)


def test_a_killed_arm_goes_on_behind_its_last_text(make_arms, hybrid, mine, forwards) -> None:
    def arms():
        return make_arms([METRIC], {"mine": mine}, candidate=hybrid(streaming=(0,)))

    forwards.limit = 20 + 5  # two prompts of the base in one batch, and into the third
    with pytest.raises(KeyboardInterrupt):
        list(METRIC.measure(arms()))
    forwards.limit = None
    resumed = [figure.measurement for figure in METRIC.measure(arms())]
    assert len(forwards) == 25 + 20 + 40
    assert resumed == [figure.measurement for figure in METRIC.measure(arms())]
    assert len(forwards) == 25 + 20 + 40


@pytest.mark.parametrize(
    ("row", "where", "match"),
    [
        ({"reference": "a"}, "prompt", "rouge_l"),
        ({"prompt": " ", "reference": "a"}, "prompt", "exact"),
        ({"prompt": "a"}, "reference", "contains"),
        ({"prompt": "a", "references": []}, "references", "rouge_l"),
        ({"prompt": "a", "references": ["b", 3]}, "references", "rouge_l"),
        ({"prompt": "a", "slice": 7}, "slice", "agreement"),
    ],
)
def test_a_wrong_record_is_told_with_file_line_and_field(tmp_path, row, where, match) -> None:
    folder = write_items(tmp_path / "mine", [ROWS[0], row])
    with pytest.raises(InputError) as told:
        Prompts(text="mine", match=match).check_items({"mine": folder})
    assert told.value.where == f"asked.jsonl:2: {where}"
