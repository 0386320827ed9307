"""GSM8K: the prompt, both readings of the answer as lm-eval reads them, and what is refused."""

import pytest
from lm_eval.api.metrics import exact_match_hf_evaluate
from lm_eval.filters.extraction import RegexFilter
from tiny_text import write_items

from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.metrics.gsm8k import (
    FLEXIBLE,
    IGNORED,
    STRICT,
    Gsm8k,
    flexible,
    right,
    strict,
)

ROWS = [
    {"question": f"What is {n} and {n}?", "answer": f"{n} + {n} = <<{2 * n}>>.\n#### {2 * n:,}"}
    for n in range(600, 608)
]
METRIC = Gsm8k(text="sums", shots=2, limit=3, max_new_tokens=12, at_once=2)
SAID = (
    "She has 3 + 4 = 7.\n#### 7",
    "#### 1,234.\nand #### 5",
    "#### -3.50",
    "It costs $1,216 in all.",
    "the answer is 1216",
    "1216 apples, so 12.",
    "no number at all",
    "",
    "#### none, 16 %",
    "####18",
    "#### $18",
    "... 7",
)


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("answer", ["so.\n#### 1,216", "#### 7", "#### 1234", "#### 18", "#### 12"])
def test_both_readings_are_lm_evals(said, answer) -> None:
    for read, pattern, group in ((strict, STRICT, 0), (flexible, FLEXIBLE, -1)):
        theirs = RegexFilter(pattern.pattern, group_select=group).apply([[said]], [{}])
        scored = exact_match_hf_evaluate(
            predictions=next(iter(theirs)),
            references=[answer],
            regexes_to_ignore=[pattern.pattern for pattern in IGNORED],
            ignore_case=True,
        )
        assert right(read(said), answer) == (scored["exact_match"] == 1)


def test_the_patterns_are_those_of_lm_evals_task() -> None:
    from importlib.resources import files

    from lm_eval.tasks import TaskManager
    from ruamel.yaml import YAML

    assert "gsm8k" in TaskManager().all_tasks
    text = files("lm_eval.tasks").joinpath("gsm8k/gsm8k.yaml").read_text()
    task = YAML(typ="safe").load(text)
    by_name = {one["name"]: one["filter"][0]["regex_pattern"] for one in task["filter_list"]}
    assert by_name == {"strict-match": STRICT.pattern, "flexible-extract": FLEXIBLE.pattern}
    assert task["metric_list"][0]["regexes_to_ignore"] == [p.pattern for p in IGNORED]


def test_items_are_asked_behind_worked_examples(make_arms, hybrid, tmp_path) -> None:
    folder = write_items(tmp_path / "sums", ROWS)
    candidate = hybrid(streaming=(0,))
    seen = []
    candidate.model.embed_tokens.register_forward_hook(
        lambda module, inputs, output: seen.extend(inputs[0]) if inputs[0].shape[1] > 1 else None
    )
    arms = make_arms([METRIC], {"sums": folder}, candidate=candidate)
    figures = {(f.measurement.metric, f.measurement.arm): f for f in METRIC.measure(arms)}
    assert {name for name, _ in figures} == set(METRIC.names())
    texts = [arms.texts.tokenizer.decode(ids, skip_special_tokens=True) for ids in seen]
    shown = "\n\n".join(f"Question: {r['question']}\nAnswer: {r['answer']}" for r in ROWS[:2])
    assert texts == [f"{shown}\n\nQuestion: {row['question']}\nAnswer:" for row in ROWS[2:5]]
    figure = figures["generation.sums", "candidate"]
    assert [item.correct for item in figure.items] == [False] * 3  # random weights
    assert [item.words.expected for item in figure.items] == ["1,204", "1,206", "1,208"]
    assert figures["exact_match.sums.flexible", "base"].measurement.detail.startswith("flexible")


def test_examples_may_come_from_records_of_their_own(tmp_path) -> None:
    folders = {
        "sums": write_items(tmp_path / "sums", ROWS[:1]),
        "shown": write_items(tmp_path / "shown", ROWS[1:4]),
    }
    metric = Gsm8k(text="sums", examples="shown", shots=3)
    assert metric.needed_texts() == ("sums", "shown")
    metric.check_items(folders)
    with pytest.raises(InputError, match="records"):
        Gsm8k(text="sums", shots=1).check_items(folders)


def test_an_answer_without_a_number_is_told_with_its_line(tmp_path) -> None:
    folder = write_items(tmp_path / "sums", [*ROWS, {"question": "How?", "answer": "well"}])
    with pytest.raises(InputError, match="number") as told:
        METRIC.check_items({"sums": folder})
    assert told.value.where == "asked.jsonl:9: answer"
