"""The step: a converted checkpoint goes in, a healed one comes out, killed or not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from finetune.healing_case import OPTIONS, TEXT, HealingCase
from tiny_checkpoint import byte_tokenizer

from tasks.errors import InputError
from tasks.measure.models import load_base, load_checkpoint
from tasks.store import MANIFEST

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
    assert facts["options"]["learning_rate"] == OPTIONS.learning_rate
    assert (facts["steps"], facts["tokens"]) == (report.steps, report.tokens)
    assert facts["passes"] > 1
    assert str(case.root) not in text
    assert "seconds" not in text


def test_the_report_counts_steps_tokens_and_parameters(healed):
    _, report = healed
    assert report.steps == len(report.points) == OPTIONS.steps
    assert report.tokens == OPTIONS.steps * OPTIONS.rows_per_step * OPTIONS.row_tokens
    # q and o: 48 -> 48, k and v: 48 -> 16; rank 4; 4 layers
    assert report.trained_parameters == 4 * 4 * (2 * (48 + 48) + 2 * (48 + 16))
    assert report.seconds > 0


def test_nothing_is_pickled(healed):
    case, _ = healed
    left = [path for path in (case.root / "work").rglob("*") if path.is_file()]
    assert [path.name for path in left] == ["training.safetensors"]
    header = json.loads(left[0].read_bytes()[8:].split(b"}}", 1)[0].decode() + "}}")
    assert "training" in header["__metadata__"]


def test_killed_between_two_snapshots_it_comes_to_the_same_weights(healed, tmp_path):
    _, expected = healed
    script = Path(__file__).with_name("healing_case.py")
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
    }
    killed = subprocess.run(
        [sys.executable, script, tmp_path, "10"], env=env, capture_output=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    case = HealingCase(tmp_path)
    report = case.heal()
    assert "finetune goes on from step 8 of 24" in case.log
    assert report.points == expected.points
    assert report.checkpoint.sha256 == expected.checkpoint.sha256


def test_the_control_arm_is_a_plan_that_keeps_every_layer(tmp_path):
    case = HealingCase(tmp_path, streaming=False)
    report = case.heal(steps=4)
    assert report.points[0].kl_nats == 0.0
    assert report.points[-1].kl_nats > 0.0
    assert report.checkpoint.sha256 != case.checkpoint.sha256


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"next_token_weight": 0.0, "kl_weight": 0.0}, "finetune.kl_weight"),
        ({"warmup_steps": 24}, "finetune.warmup_steps"),
        ({"targets": ("q_proj", "gate")}, "finetune.targets"),
    ],
)
def test_options_that_cannot_train_are_refused(tmp_path, changed, where):
    with pytest.raises(InputError) as caught:
        HealingCase(tmp_path).heal(**changed)
    assert caught.value.where == where


def test_a_text_shorter_than_one_row_is_refused(tmp_path):
    with pytest.raises(InputError, match="english"):
        HealingCase(tmp_path).heal(text="Too short.")
