"""lm-eval as a metric: its figures and items on every arm, and what cannot be run."""

import pytest
import torch
from tiny_questions import rows, task_folder
from tiny_text import write_items

from layerwright.tasks.evaluate import harness_runs
from layerwright.tasks.evaluate.harness_runs import TaskFigure, TaskRun
from layerwright.tasks.evaluate.metrics.arc import Arc
from layerwright.tasks.evaluate.metrics.boolq import BoolQ
from layerwright.tasks.evaluate.metrics.harness import Harness

HARNESS = Harness(tasks=("my_arc", "my_boolq"), figures=("acc", "acc_norm"), definitions="mine")


@pytest.fixture
def texts(tmp_path):
    for name in ("arc", "boolq"):
        task_folder(tmp_path / "mine", name, rows(name, 10))
        write_items(tmp_path / name, rows(name, 10))
    return {name: tmp_path / name for name in ("mine", "arc", "boolq")}


def test_figures_and_items_are_those_of_our_own_tasks(texts, make_arms, hybrid):
    arms = make_arms([], texts, candidate=hybrid(streaming=(0, 2)))
    found = {(f.measurement.metric, f.measurement.arm): f for f in HARNESS.measure(arms)}
    assert {name for name, _ in found} == set(HARNESS.names())
    for ours in (Arc(texts=("arc",)), BoolQ(texts=("boolq",))):
        for figure in ours.measure(arms):
            mine, expected = figure.measurement, figure.items
            theirs = found[mine.metric.replace("task.", "harness.my_"), mine.arm]
            assert (theirs.measurement.value, theirs.measurement.unit) == (mine.value, "share")
            assert [i.correct for i in theirs.items] == [i.correct for i in expected]
    missing = found["harness.my_boolq.acc_norm", "base"].measurement
    assert (missing.value, missing.detail[:29]) == (None, "the task has no single figure")


def test_answers_are_kept_one_by_one(texts, make_arms, hybrid, forwards):
    models = {"candidate": hybrid(streaming=(0,))}
    first = list(HARNESS.measure(make_arms([], texts, **models)))
    assert forwards
    forwards.clear()
    arms = make_arms([], texts, **models)
    for arm in arms.names:  # as if killed before a task was whole
        for path in arms.folder(arm).glob("harness-*.jsonl"):
            path.unlink()
    assert list(HARNESS.measure(arms)) == first
    assert not forwards


def test_figures_are_the_same_when_memory_holds_one_row(texts, make_arms, hybrid, monkeypatch):
    metric, sizes = Harness(tasks=("my_arc",), definitions="mine"), []
    model = hybrid(streaming=(0,))
    model.model.embed_tokens.register_forward_pre_hook(lambda _, ids: sizes.append(len(ids[0])))
    together = list(metric.measure(make_arms([], texts, base=model)))
    assert max(sizes) > 1
    sizes.clear()
    monkeypatch.setattr(harness_runs, "LOGIT_BYTES", 1)
    assert list(metric.measure(make_arms([], texts, base=model, candidate=model)))[:1] == together
    assert set(sizes) == {1}


def test_the_items_of_a_group_are_those_of_its_tasks(texts, make_arms, hybrid):
    (texts["mine"] / "both.yaml").write_text("group: both\ntask: [my_arc, my_boolq]\n")
    metric = Harness(tasks=("both",), definitions="mine", limit=6)
    base = next(iter(metric.measure(make_arms([], texts, candidate=hybrid()))))
    assert [item.slice for item in base.items] == ["my_arc"] * 6 + ["my_boolq"] * 6
    assert base.measurement.value == sum(item.correct for item in base.items) / 12


def test_what_cannot_be_run_says_why_and_the_others_are_run(texts, make_arms, values, hybrid):
    (texts["mine"] / "arc.jsonl").unlink()
    metric = Harness(tasks=("my_arc", "my_boolq"), definitions="mine")
    found = values(metric, make_arms([], texts, candidate=hybrid()))
    for arm in ("base", "candidate"):
        assert found["harness.my_arc.acc", arm].value is None
        assert "arc.jsonl" in found["harness.my_arc.acc", arm].detail
        assert found["harness.my_boolq.acc", arm].count == 10


def test_likelihoods_that_are_no_numbers_give_no_figure(texts, make_arms, values, hybrid):
    broken = hybrid()
    with torch.no_grad():
        broken.model.norm.weight[0] = float("nan")
    metric = Harness(tasks=("my_arc",), definitions="mine")
    found = values(metric, make_arms([], texts, candidate=broken))
    assert found["harness.my_arc.acc", "base"].value is not None
    assert found["harness.my_arc.acc", "candidate"].value is None
    assert "10 of 10 items" in found["harness.my_arc.acc", "candidate"].detail


def test_a_figure_is_found_with_and_without_its_filter():
    figures = {
        name: TaskFigure(higher_is_better=True, value=i)
        for i, name in enumerate(("acc,none", "em,strict", "em,loose", "f1,words"))
    }
    run = TaskRun(figures=figures)
    assert [run.find(n).value for n in ("acc", "acc,none", "em,loose", "f1")] == [0, 0, 2, 3]
    assert run.find("em") is None


def test_tasks_that_generate_their_data_are_told_lengths(texts, make_arms, hybrid):
    (texts["mine"] / "long.py").write_text(GENERATED)
    (texts["mine"] / "long.yaml").write_text(LONG)
    metric = Harness(
        tasks=("long",),
        figures=("100",),
        definitions="mine",
        metadata={"max_seq_lengths": [100, 40]},
    )
    base = next(iter(metric.measure(make_arms([], texts, candidate=hybrid()))))
    # random weights find nothing; items of another length count as -1, which lm-eval leaves out
    assert (base.measurement.value, base.measurement.unit, base.items) == (0, "share", ())


LONG = """\
task: long
custom_dataset: !function long.dataset
output_type: generate_until
test_split: test
doc_to_text: "{{text}}"
doc_to_target: "{{answer}}"
process_results: !function long.scores
metric_list: [{metric: "100", aggregation: !function long.mean_of_length, higher_is_better: true}]
generation_kwargs: {max_gen_toks: 3, do_sample: false, until: []}
"""
GENERATED = """\
import datasets

def dataset(max_seq_lengths, **told):
    rows = [{"text": "x" * n, "length": n, "answer": "needle"} for n in max_seq_lengths]
    return {"test": datasets.Dataset.from_list(rows)}

def scores(doc, results):
    return {"100": float(doc["answer"] in results[0]) if doc["length"] == 100 else -1.0}

def mean_of_length(values):
    kept = [value for value in values if value >= 0]
    return sum(kept) / len(kept)
"""
