"""Zero-shot tasks: what lm-eval says of the same rows, and what is wrong with other rows."""

import re
from contextlib import chdir

import pytest
import torch
from lm_eval import simple_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tiny import tiny_llama
from tiny_checkpoint import byte_tokenizer
from tiny_questions import FILES, rows, task_folder
from tiny_text import write_items, write_text

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.metrics.boolq import BoolQRow


def metric(name: str, **options) -> Metric:
    return build(Metric, Spec(name=name, texts=[f"my_{name}"], **options))


@pytest.fixture
def arms_on(tmp_path, make_arms, hybrid):
    """``arms_on(name, lines)``: a base and a streaming candidate on those rows."""

    def make(name, lines, **models):
        folder = tmp_path / f"rows{len(list(tmp_path.glob('rows*')))}"
        texts = {f"my_{name}": write_items(folder, lines)}
        return make_arms([], texts, **({"candidate": hybrid(streaming=(0, 2))} | models))

    return make


@pytest.mark.parametrize("name", FILES)
def test_every_figure_and_item_is_lm_evals(name, tmp_path, arms_on):
    lines, task = rows(name, 16), f"my_{name}"
    with chdir(task_folder(tmp_path / "theirs", name, lines)):
        theirs = simple_evaluate(
            HFLM(pretrained=tiny_llama(), tokenizer=byte_tokenizer()),
            tasks=[task],
            task_manager=TaskManager(include_path=".", include_defaults=False),
            bootstrap_iters=0,
        )
    samples = sorted(theirs["samples"][task], key=lambda sample: sample["doc_id"])
    figures = metric(name).measure(arms_on(name, lines))
    ours = {f.measurement.metric: f for f in figures if f.measurement.arm == "base"}
    names = {figure: f"task.{task}.{figure}" for figure in samples[0]["metrics"]}
    if "perplexity" in names:
        names["perplexity"] = f"word_perplexity.{task}"  # of words, and of no corpus
    assert set(ours) == set(names.values())
    for short, full in names.items():
        figure = ours[full]
        expected = theirs["results"][task][f"{short},none"]
        assert figure.measurement.value == pytest.approx(expected, rel=1e-4)
        assert figure.measurement.count == len(figure.items) == 16
        if short != "perplexity":
            right = [bool(sample[short]) for sample in samples]
            assert [item.correct for item in figure.items] == right
            assert sum(right) > 0 or name == "lambada"  # random weights guess no word


def test_rows_of_the_first_release_of_boolq_are_read_too():
    row = rows("boolq", 1)[0]
    label = row.pop("label")
    for given in (label, bool(label)):
        for name in ("label", "answer"):
            assert BoolQRow.model_validate(row | {name: given}).label == label


def test_limit_and_slices(arms_on):
    lines = [{**row, "topic": "water" if i % 3 else "air"} for i, row in enumerate(rows("piqa"))]
    figure = next(iter(metric("piqa", limit=5, slice_by="topic").measure(arms_on("piqa", lines))))
    assert figure.measurement.count == 5
    assert [item.slice for item in figure.items] == ["air", "water", "water", "air", "water"]


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("arc", {"answerKey": "Z"}, "answerKey 'Z'"),
        ("arc", {"choices": {"text": ["a"]}}, "choices.label: .*Field required"),
        ("hellaswag", {"label": ""}, "label: .*a valid integer"),
        ("hellaswag", {"label": 9}, "label 9 of"),
        ("piqa", {"label": 2}, "label: .*less than or equal to 1"),
        ("piqa", {"sol2": " "}, "sol2: .*should match"),
        ("winogrande", {"sentence": "no gap"}, "blank"),
        ("winogrande", {"answer": "3"}, "answer: .*should match"),
        ("lambada", {"text": "alone"}, "word after its last space"),
    ],
)
def test_a_row_that_is_no_question_is_named(name, change, said, arms_on, values):
    lines = rows(name, 3)
    lines[2] = lines[2] | change
    with pytest.raises(InputError) as raised:
        values(metric(name), arms_on(name, lines))
    assert raised.value.where.startswith("asked.jsonl:3")
    assert f"'my_{name}' is not a question in {name}'s format" in str(raised.value)
    assert re.search(said, f"{raised.value.where}: {raised.value}")


def test_a_slice_that_no_row_has_is_named(arms_on, values):
    with pytest.raises(InputError, match="topic"):
        values(metric("piqa", slice_by="topic"), arms_on("piqa", rows("piqa")))


def test_a_text_is_not_taken_for_rows(tmp_path, make_arms, values, hybrid):
    texts = {"my_piqa": write_text(tmp_path / "my_piqa", "some words")}
    with pytest.raises(InputError, match="not as rows"):
        values(metric("piqa"), make_arms([], texts, candidate=hybrid()))


def test_likelihoods_that_are_no_numbers_give_no_figure(arms_on, values, hybrid):
    broken = hybrid()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    found = values(metric("arc"), arms_on("arc", rows("arc"), candidate=broken))
    for figure in ("acc", "acc_norm"):
        assert found[f"task.my_arc.{figure}", "base"].value is not None
        assert found[f"task.my_arc.{figure}", "candidate"].value is None
        assert "12 of 12 items" in found[f"task.my_arc.{figure}", "candidate"].detail
