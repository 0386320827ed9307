"""Layers that a plan takes out are made to do little first, and the rest learns what they knew."""

import json

import pytest
import torch
from finetune.healing_case import HELD_OUT, HealingCase
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.references import Calibration
from layerwright.tasks.convert.checkpoint import convert_model
from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.regularization import regularize_model
from layerwright.tasks.models.loading import load_base, load_checkpoint
from layerwright.tasks.recipe.regularize import RegularizeOptions
from layerwright.tasks.recipe.training import AdapterOptions, ValidationOptions

OPTIONS = RegularizeOptions(
    text="english",
    row_tokens=32,
    steps=30,
    rows_per_step=2,
    learning_rate=2e-3,
    adapter=AdapterOptions(kind="full"),
    weights=(0.5,),
    validation=ValidationOptions(text="held-out", rows=4, every_tokens=400),
    checkpoint_every=4,
)
IDS = byte_tokenizer()(HELD_OUT, return_tensors="pt").input_ids[:, :128].view(4, 32)


def plan(case, strategy="remove"):
    keep = [PlanItem(start=i, stop=i + 1, strategy="keep") for i in (0, 3)]
    return ConversionPlan(
        model_sha256=case.base.sha256,
        layers=4,
        context_tokens=64,
        selector="hand",
        items=(keep[0], PlanItem(start=1, stop=3, strategy=strategy), keep[1]),
    )


def regularize(case, options=OPTIONS, log=None, **given):
    texts = case.text(), case.text(HELD_OUT, "held-out")
    return regularize_model(case.base, plan(case), *texts, options, case.context(log, **given))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    case = HealingCase(tmp_path_factory.mktemp("regularized"))
    return case, regularize(case)


@torch.no_grad()
def changes(model, layers=(1, 2)):
    hidden, placement = model.model.prepare(IDS)
    found = []
    for layer in model.model.layers:
        after = layer(hidden, placement)
        found.append(float((after - hidden).square().mean(-1).sqrt().mean()))
        hidden = after
    return [found[layer] for layer in layers]


def test_the_doomed_layers_do_less_and_the_model_without_them_is_better(done):
    case, report = done
    base, after = (load_base(case.store.open_tree(ref.sha256)) for ref in (case.base, report.model))
    assert report.layers == (1, 2)
    assert sum(changes(after)) < 0.8 * sum(changes(base))
    assert report.nll_after < 0.95 * report.nll_before
    assert set(report.points[0].values) == {"next_token", "layer_change"}
    assert report.points[0].values["layer_change"] > report.points[-1].values["layer_change"]


def test_the_conversion_starts_from_it_and_the_lineage_names_both(done):
    case, report = done
    rows = Calibration(text=case.text(), rows=2, row_tokens=32)
    ctx = case.context()
    ref = convert_model(case.base, plan(case), rows, ctx, regularized=report.model)
    folder = case.store.open_tree(ref.sha256)
    lineage = json.loads((folder / "layerwright.json").read_text())
    assert ref.base_sha256 == lineage["base"]["sha256"] == case.base.sha256
    assert lineage["regularized"]["sha256"] == report.model.sha256
    assert lineage["regularized"]["layers"] == [1, 2]
    with torch.no_grad():
        nll = float(load_checkpoint(folder)(IDS, labels=IDS).loss)
    assert nll == pytest.approx(report.nll_after, rel=1e-5)
    plainly = convert_model(case.base, plan(case), rows, ctx)
    with torch.no_grad():
        before = float(load_checkpoint(case.store.open_tree(plainly.sha256))(IDS, labels=IDS).loss)
    assert before == pytest.approx(report.nll_before, rel=1e-5)


def test_of_several_weights_the_one_that_does_best_without_the_layers_is_trained(tmp_path):
    case = HealingCase(tmp_path)
    options = OPTIONS.model_copy(
        update={"weights": (1e-4, 0.5), "sweep_steps": 12, "steps": 6, "validation":
                OPTIONS.validation.model_copy(update={"patience": 9})}
    )  # fmt: skip
    report = regularize(case, options)
    assert [trial.weight for trial in report.trials] == [1e-4, 0.5]
    best = min(report.trials, key=lambda trial: trial.nll)
    assert report.weight == best.weight
    assert report.trials[0].nll != report.trials[1].nll
    alone = HealingCase(tmp_path / "alone")
    again = regularize(alone, options.model_copy(update={"weights": (best.weight,)}))
    assert again.points == report.points


def test_killed_it_goes_on_where_it_was(done, tmp_path):
    _, expected = done

    def die(message):
        if "step 10 of 30" in message:
            raise KeyboardInterrupt

    case = HealingCase(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        regularize(case, log=die)
    report = regularize(case)
    assert "regularize resumes from step 8 of 30" in case.log
    assert report.points == expected.points
    assert report.model.sha256 == expected.model.sha256


@pytest.mark.parametrize("adapter", [AdapterOptions(rank=4), AdapterOptions(kind="full")])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_every_adapter_and_norm(tmp_path, adapter, norm):
    case = HealingCase(tmp_path)
    options = OPTIONS.model_copy(update={"adapter": adapter, "norm": norm, "steps": 3})
    report = regularize(case, options)
    assert report.steps == 3
    assert report.model.sha256 != case.base.sha256


def test_a_plan_without_such_layers_is_refused(tmp_path):
    case = HealingCase(tmp_path)
    options = OPTIONS.model_copy(update={"strategies": ("linear",)})
    with pytest.raises(InputError, match="the plan removes no layer") as caught:
        regularize(case, options)
    assert caught.value.where == "regularize.strategies"
