"""The step: a converted checkpoint goes in, a healed one comes out, killed or not."""

import json
import signal
from itertools import pairwise

import pytest
import torch
from finetune.healing_case import (
    HELD_OUT,
    LAYERS,
    OPTIONS,
    STAGE,
    TEXT,
    TWO_STAGES,
    HealingCase,
    heal_and_die,
)
from forks import Fork
from safetensors.torch import load
from tiny_checkpoint import byte_tokenizer

from layerwright.tasks.errors import InputError
from layerwright.tasks.models.loading import load_base, load_checkpoint
from layerwright.tasks.recipe.training import PROJECTIONS, AdapterOptions, HealingStage
from layerwright.tasks.store.manifest import MANIFEST

IDS = byte_tokenizer()(TEXT, return_tensors="pt").input_ids[:, :96]


@pytest.fixture(scope="module")
def healed(tmp_path_factory):
    case = HealingCase(tmp_path_factory.mktemp("healed"))
    return case, case.heal()


def files(case, sha256):
    folder = case.store.open_tree(sha256)
    found = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*")}
    return {name: data for name, data in found.items() if name != MANIFEST}


def test_the_merged_model_is_nearer_to_its_base(healed):
    case, report = healed
    base = load_base(case.store.open_tree(case.base.sha256))
    with torch.no_grad():
        expected = base(IDS).logits.log_softmax(-1)
        before, after = (
            load_checkpoint(case.store.open_tree(ref.sha256))(IDS).logits.log_softmax(-1)
            for ref in (case.checkpoint, report.checkpoint)
        )
    before, after = (
        float((expected.exp() * (expected - q)).sum(-1).mean()) for q in (before, after)
    )
    assert after < 0.9 * before


def test_only_weights_and_lineage_differ_from_the_input(healed):
    case, report = healed
    before, after = (files(case, ref.sha256) for ref in (case.checkpoint, report.checkpoint))
    assert before.keys() == after.keys()
    changed = {name for name, data in after.items() if data != before[name]}
    assert changed == {"model.safetensors", "layerwright.json"}
    assert report.checkpoint.base_sha256 == case.checkpoint.base_sha256
    assert report.checkpoint.plan_sha256 == case.checkpoint.plan_sha256


def test_the_lineage_tells_what_was_done_and_neither_when_nor_where(healed):
    case, report = healed
    text = files(case, report.checkpoint.sha256)["layerwright.json"].decode()
    lineage = json.loads(text)
    assert lineage["plan"] == "by hand"
    facts = lineage["finetune"]
    assert facts["input_sha256"] == case.checkpoint.sha256
    assert facts["teacher_sha256"] == case.base.sha256
    assert facts["options"]["stages"][0]["learning_rate"] == STAGE.learning_rate
    assert (facts["steps"], facts["tokens"]) == (report.steps, report.tokens)
    assert facts["passes"] > 1
    assert str(case.root) not in text
    assert "seconds" not in text


def test_the_report_counts_steps_tokens_and_parameters(healed):
    _, report = healed
    assert report.steps == len(report.points) == STAGE.steps
    assert report.tokens == STAGE.steps * STAGE.rows_per_step * OPTIONS.row_tokens
    # q and o: 48 -> 48, k and v: 48 -> 16, gate, up and back down: 48 -> 96; rank 4; 4 layers
    assert report.trained_parameters == 4 * 4 * (2 * (48 + 48) + 2 * (48 + 16) + 3 * (48 + 96))
    assert report.seconds > 0


def test_by_default_every_projection_learns_the_logits_of_the_base(tmp_path):
    case = HealingCase(tmp_path)
    report = case.heal(OPTIONS.model_copy(update={"stages": (HealingStage(steps=8),)}))
    assert report.stages[0].units == {"logit_kl": "nats"}
    assert report.points[-1].learning_rate < report.points[0].learning_rate == 5e-4
    before, after = (
        load(files(case, ref.sha256)["model.safetensors"])
        for ref in (case.checkpoint, report.checkpoint)
    )
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {name for name in after if name.split(".")[-2] in PROJECTIONS}
    assert len(changed) == LAYERS * len(PROJECTIONS)


def test_nothing_is_pickled(healed):
    case, _ = healed
    left = [path for path in (case.root / "work").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["stage-1.safetensors"]
    header = json.loads(left[0].read_bytes()[8:].split(b"}}", 1)[0].decode() + "}}")
    assert "training" in header["__metadata__"]


@pytest.fixture(scope="module")
def healed_in_stages(tmp_path_factory):
    case = HealingCase(tmp_path_factory.mktemp("stages"))
    return case, case.heal(TWO_STAGES)


def test_stages_follow_each_other(healed_in_stages):
    case, report = healed_in_stages
    first, second = report.stages
    assert (first.units, first.adapter) == ({"attention_output": "share of energy"}, "full")
    assert set(second.units) == {"logit_kl", "next_token"}
    assert (first.steps, second.steps, report.steps) == (6, 12, 18)
    assert [p.stage for p in report.points] == [0] * 6 + [1] * 12
    assert [p.step for p in report.points] == list(range(1, 19))
    assert set(report.points[0].values) == {"attention_output"}
    assert report.tokens == 6 * 32 + 12 * 64
    for index in range(2):
        held_out = [p.loss for p in report.validation if p.stage == index]
        assert min(held_out) < held_out[0]
    assert f"{case.root / 'work'}" not in report.model_dump_json()


def test_validation_is_measured_on_the_way_and_the_best_state_is_merged(healed_in_stages):
    case, report = healed_in_stages
    for index, stage in enumerate(report.stages):
        points = [p for p in report.validation if p.stage == index]
        assert points[0].tokens == (0 if index == 0 else report.stages[0].tokens)
        assert points[-1].tokens == points[0].tokens + stage.tokens
        best = min(points, key=lambda p: p.loss)
        assert stage.best_step == best.step
        gaps = [b.tokens - a.tokens for a, b in pairwise(points[:-1])]
        assert all(200 <= gap < 200 + 64 for gap in gaps)
    assert report.best_step == report.stages[-1].best_step
    best = next(p for p in report.validation if (p.stage, p.step) == (1, report.best_step))
    ids = byte_tokenizer()(HELD_OUT, return_tensors="pt").input_ids[0, :96].view(3, 32)
    model = load_checkpoint(case.store.open_tree(report.checkpoint.sha256))
    with torch.no_grad():
        nll = float(model(ids, labels=ids).loss)
    assert nll == pytest.approx(best.nll, rel=1e-5)


def test_the_best_state_is_kept_and_the_stage_stops_early(tmp_path):
    stage = STAGE.model_copy(update={"learning_rate": 0.5, "schedule": "constant"})
    validation = TWO_STAGES.validation.model_copy(update={"every_tokens": 64, "patience": 3})
    options = OPTIONS.model_copy(update={"stages": (stage,), "validation": validation})
    case = HealingCase(tmp_path)
    report = case.heal(options)
    assert report.stopped_early
    assert report.steps == report.best_step + 3 < 24
    assert "no improvement in 3 validations" in " ".join(case.log)
    losses = [p.loss for p in report.validation]
    assert min(losses) == losses[report.best_step]


@pytest.mark.parametrize(
    ("which", "options", "kill_at", "goes_on"),
    [
        ("one", OPTIONS, "step 10 of 24", "finetune resumes from step 8 of 24"),
        ("two", TWO_STAGES, "stage 2, step 10 of 12", "from stage 2, step 8 of 12"),
        ("two", TWO_STAGES, "step 6 of 6", "finetune resumes from step 4 of 6"),
    ],
)
def test_killed_between_two_snapshots_it_comes_to_the_same_weights(
    healed, healed_in_stages, tmp_path, which, options, kill_at, goes_on
):
    _, expected = healed if which == "one" else healed_in_stages
    assert Fork(heal_and_die, tmp_path, options, kill_at).wait() == -signal.SIGKILL
    case = HealingCase(tmp_path)
    report = case.heal(options)
    assert goes_on in " ".join(case.log)
    assert report.points == expected.points
    without_time = {"seconds"}
    assert [p.model_dump(exclude=without_time) for p in report.validation] == [
        p.model_dump(exclude=without_time) for p in expected.validation
    ]
    assert report.stages == expected.stages
    assert report.checkpoint.sha256 == expected.checkpoint.sha256


def test_a_finished_training_is_not_done_again(healed_in_stages):
    case, expected = healed_in_stages
    report = case.heal(TWO_STAGES)
    assert (report.points, report.seconds) == (expected.points, expected.seconds)
    assert report.checkpoint.sha256 == expected.checkpoint.sha256


def test_the_control_arm_is_a_plan_that_keeps_every_layer(tmp_path):
    case = HealingCase(tmp_path, streaming=False)
    report = case.heal(TWO_STAGES)
    assert [stage.steps for stage in report.stages] == [0, 12], "no layer to heal by itself"
    points = [p.values["logit_kl"] for p in report.points]
    assert points[0] == 0.0
    assert points[-1] > 0.0
    assert report.checkpoint.sha256 != case.checkpoint.sha256


def test_a_control_arm_that_looks_to_the_base_alone_stays_the_base(tmp_path):
    towards_the_base = HealingStage(steps=3, learning_rate=1e-2)
    text_as_well = STAGE.model_copy(update={"steps": 4})
    stages = (towards_the_base, text_as_well, towards_the_base)
    case = HealingCase(tmp_path, streaming=False)
    report = case.heal(OPTIONS.model_copy(update={"stages": stages[:1]}))
    assert (report.steps, report.trained_parameters) == (0, 0)
    before, after = (
        files(case, ref.sha256)["model.safetensors"] for ref in (case.checkpoint, report.checkpoint)
    )
    assert after == before
    assert any("model still equals the base" in line for line in case.log)
    case = HealingCase(tmp_path / "text", streaming=False)
    report = case.heal(OPTIONS.model_copy(update={"stages": stages}))
    assert [stage.steps for stage in report.stages] == [0, 4, 3], "no longer the base in the third"


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        (
            {"adapter": AdapterOptions(targets=("q_proj", "gate"))},
            "finetune.stages.0.adapter.targets",
        ),
        ({"parts": ("linear",)}, "finetune.stages.0.parts"),
    ],
)
def test_what_the_model_has_not_is_refused(tmp_path, changed, where):
    options = OPTIONS.model_copy(update={"stages": (STAGE.model_copy(update=changed),)})
    with pytest.raises(InputError) as caught:
        HealingCase(tmp_path).heal(options)
    assert caught.value.where == where


def test_a_text_shorter_than_one_row_is_refused(tmp_path):
    with pytest.raises(InputError, match="english"):
        HealingCase(tmp_path).heal(text="Too short.")
