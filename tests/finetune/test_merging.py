"""A merged checkpoint is the input checkpoint with some tensors replaced, and nothing else."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from layerwright.tasks.finetune.setup import write_merged
from layerwright.tasks.store.manifest import MANIFEST

METADATA = {"format": "pt"}


@pytest.fixture
def source(tmp_path):
    """Two shards, a nested code file, a lineage and a manifest."""
    folder = tmp_path / "source"
    (folder / "code").mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    first = {"a": torch.randn(4, 3, generator=generator), "b": torch.ones(2)}
    second = {"c": torch.randn(4, 3, generator=generator).bfloat16()}
    save_file(first, folder / "model-00001-of-00002.safetensors", metadata=METADATA)
    save_file(second, folder / "model-00002-of-00002.safetensors", metadata=METADATA)
    (folder / "code" / "modeling.py").write_text("x = 1\n")
    (folder / "config.json").write_text("{}\n")
    (folder / "layerwright.json").write_text('{"plan_sha256": "p"}\n')
    (folder / MANIFEST).write_text("{}")
    return folder


@pytest.fixture
def target(tmp_path):
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


def weights(folder):
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def test_replaces_the_given_weights_alone_in_their_own_dtype(source, target):
    value = torch.full((4, 3), 1 / 3)
    write_merged(source, target, {"a": lambda: value, "c": lambda: value}, {"steps": 2})
    before, after = weights(source), weights(target)
    assert torch.equal(after["a"], value)
    assert torch.equal(after["b"], before["b"])
    assert after["c"].dtype == torch.bfloat16
    assert torch.equal(after["c"], value.bfloat16())


def test_keeps_shards_metadata_and_every_other_file(source, target):
    write_merged(source, target, {"a": lambda: torch.ones(4, 3)}, {"steps": 2})
    names = {path.relative_to(source) for path in source.rglob("*") if path.name != MANIFEST}
    assert {path.relative_to(target) for path in target.rglob("*")} == names
    for name in ("code/modeling.py", "config.json"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    for path in source.glob("*.safetensors"):
        with safe_open(path, "pt") as old, safe_open(target / path.name, "pt") as new:
            assert list(new.keys()) == list(old.keys())
            assert new.metadata() == METADATA


def test_extends_the_lineage(source, target):
    write_merged(source, target, {}, {"steps": 2})
    lineage = json.loads((target / "layerwright.json").read_text())
    assert lineage == {"plan_sha256": "p", "finetune": {"steps": 2}}


def test_a_weight_that_is_not_there_is_a_fault(source, target):
    with pytest.raises(AssertionError, match="missing"):
        write_merged(source, target, {"missing": lambda: torch.ones(1)}, {})
