"""Base and plan to checkpoint: the base's bytes, the plan's behaviour, the same digest always."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forks import Fork
from safetensors.torch import load_file
from tiny import LAYERS, tiny_llama, tiny_tokens
from tiny_checkpoint import tiny_ref, write_checkpoint

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.references import Calibration, ModelRef, TextRef
from layerwright.tasks.convert.checkpoint import convert_model
from layerwright.tasks.errors import InputError
from layerwright.tasks.models.conversion import converted
from layerwright.tasks.models.loading import load_base, load_checkpoint, load_tokenizer
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.strategies.specs import assignments_of, specs_of

NO_TEXT = TextRef(uri="", sha256="0" * 64, bytes=0, source="", documents=0, characters=0)
ROWS = Calibration(text=NO_TEXT, rows=4, row_tokens=64)  # of plans that fit nothing


def inputs(folder: Path, **overrides) -> tuple[ModelRef, Context]:
    """A tiny base in a store; made again, it is the same."""
    store = LocalStore(folder / "store")
    tree = store.put_tree(write_checkpoint(folder / "model", **overrides))
    model = tiny_ref(tree, source="local:/home/someone/models/tiny")
    return model, Context(store=store, workdir=folder / "work")


def plan_for(model: ModelRef, **changes) -> ConversionPlan:
    streaming = {"strategy": "streaming", "params": {"sinks": 2, "window": 6}}
    fields = {
        "model_sha256": model.sha256,
        "layers": LAYERS,
        "context_tokens": 64,
        "selector": "by hand",
        "items": (
            PlanItem(start=0, stop=1, strategy="keep", reason="the first"),
            PlanItem(start=1, stop=3, **streaming, reason="lazy"),
            PlanItem(start=3, stop=4, strategy="keep"),
        ),
    }
    return ConversionPlan(**(fields | changes))


@torch.inference_mode()
@pytest.mark.parametrize("tied", [False, True])
def test_the_checkpoint_computes_what_conversion_in_memory_does(tmp_path: Path, tied) -> None:
    model, ctx = inputs(tmp_path, tie_word_embeddings=tied)
    plan = plan_for(model)
    folder = ctx.store.open_tree(convert_model(model, plan, ROWS, ctx).sha256)
    base = load_base(ctx.store.open_tree(model.sha256))
    ids = tiny_tokens(2, 40)
    with converted(base, dict(enumerate(specs_of(assignments_of(plan.items))))):
        expected = base(ids).logits
    assert torch.equal(load_checkpoint(folder)(ids).logits, expected)
    assert not torch.equal(base(ids).logits, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_tensor_is_the_bases_to_the_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model, ctx = inputs(tmp_path, dtype=dtype)
    folder = ctx.store.open_tree(convert_model(model, plan_for(model), ROWS, ctx).sha256)
    base = load_file(ctx.store.open_tree(model.sha256) / "model.safetensors")
    written = load_file(folder / "model.safetensors")
    assert written.keys() == base.keys()
    for name, tensor in base.items():
        assert written[name].dtype == tensor.dtype
        assert torch.equal(written[name].view(torch.uint8), tensor.view(torch.uint8)), name


def test_tensors_of_a_removed_layer_are_not_written(tmp_path: Path) -> None:
    model, ctx = inputs(tmp_path)
    items = (
        PlanItem(start=0, stop=2, strategy="keep"),
        PlanItem(start=2, stop=3, strategy="remove"),
        PlanItem(start=3, stop=4, strategy="keep"),
    )
    folder = ctx.store.open_tree(
        convert_model(model, plan_for(model, items=items), ROWS, ctx).sha256
    )
    base = load_file(ctx.store.open_tree(model.sha256) / "model.safetensors")
    written = load_file(folder / "model.safetensors")
    assert written.keys() == {name for name in base if not name.startswith("model.layers.2.")}


def test_shards_stay_shards(tmp_path: Path) -> None:
    model, ctx = inputs(tmp_path)
    whole = load_base(ctx.store.open_tree(model.sha256))
    shutil.copytree(ctx.store.open_tree(model.sha256), tmp_path / "sharded")
    (tmp_path / "sharded/model.safetensors").unlink()
    tiny_llama(max_position_embeddings=2048).save_pretrained(
        tmp_path / "sharded", max_shard_size="100KB"
    )
    tree = ctx.store.put_tree(tmp_path / "sharded")
    sharded = model.model_copy(update=tree.model_dump())
    plan = plan_for(sharded)
    folder = ctx.store.open_tree(convert_model(sharded, plan, ROWS, ctx).sha256)
    assert len(list(folder.glob("*.safetensors"))) > 2
    loaded = load_checkpoint(folder).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in whole.state_dict().items())


def test_the_checkpoint_is_whole_and_says_where_it_comes_from(tmp_path: Path) -> None:
    model, ctx = inputs(tmp_path)
    plan = plan_for(model)
    reference = convert_model(model, plan, ROWS, ctx)
    folder = ctx.store.open_tree(reference.sha256)
    assert (reference.base_sha256, reference.plan_sha256) == (model.sha256, identity(plan))
    assert ConversionPlan.model_validate_json((folder / "plan.json").read_text()) == plan
    lineage = json.loads((folder / "layerwright.json").read_text())
    assert lineage == {
        "base": {"source": "local:tiny", "sha256": model.sha256},
        "plan_sha256": identity(plan),
    }
    config = json.loads((folder / "config.json").read_text())
    kinds = [spec["mixer"]["kind"] for spec in config["layer_specs"]]
    assert kinds == ["full", "streaming", "streaming", "full"]
    assert config["capabilities"]["mixers"] == ["full", "streaming"]
    assert (folder / "layerwright_modeling.py").is_file()
    assert (folder / "generation_config.json").is_file()
    assert (
        load_tokenizer(folder)("ab").input_ids
        == load_tokenizer(ctx.store.open_tree(model.sha256))("ab").input_ids
    )
    for file in folder.iterdir():
        if file.suffix in (".json", ".py"):
            text = file.read_text()
            assert str(tmp_path) not in text, file.name
            assert "/home/someone" not in text, file.name


def test_the_digest_depends_on_base_and_plan_alone(tmp_path: Path) -> None:
    (model, here), (same, there) = inputs(tmp_path / "a"), inputs(tmp_path / "b")
    first = convert_model(model, plan_for(model), ROWS, here)
    assert convert_model(same, plan_for(same), ROWS, there).sha256 == first.sha256
    keep = (PlanItem(start=0, stop=4, strategy="keep"),)
    assert convert_model(model, plan_for(model, items=keep), ROWS, here).sha256 != first.sha256


def convert_and_die(folder: Path, at: int) -> None:
    """Killed in the middle of a file, after so many."""
    done, original = [], shutil.copyfile

    def copy_and_die(source: Path, target: Path) -> Path:
        if len(done) == at:
            Path(target).write_bytes(Path(source).read_bytes()[:100])
            os.kill(os.getpid(), signal.SIGKILL)
        done.append(target)
        return original(source, target)

    shutil.copyfile = copy_and_die
    model, ctx = inputs(folder)
    convert_model(model, plan_for(model), ROWS, ctx)


@pytest.mark.parametrize("at", [0, 2])
def test_killed_midway_the_next_run_gives_the_same_digest(tmp_path: Path, at: int) -> None:
    model, ctx = inputs(tmp_path / "whole")
    expected = convert_model(model, plan_for(model), ROWS, ctx).sha256
    folder = tmp_path / "killed"
    assert Fork(convert_and_die, folder, at).wait() == -signal.SIGKILL
    model, ctx = inputs(folder)
    assert any((ctx.workdir / "checkpoint").iterdir()), "it was killed in the middle"
    (ctx.workdir / "checkpoint" / "left-over.bin").write_bytes(os.urandom(9))
    assert convert_model(model, plan_for(model), ROWS, ctx).sha256 == expected


@pytest.mark.parametrize("shards", [False, True])
def test_a_base_larger_than_memory_gives_the_same_digest(tmp_path: Path, shards: bool) -> None:
    (model, ctx), text = inputs(tmp_path), tmp_path / "text"
    if shards:
        folder = tmp_path / "sharded"
        shutil.copytree(ctx.store.open_tree(model.sha256), folder)
        (folder / "model.safetensors").unlink()
        tiny_llama(max_position_embeddings=2048).save_pretrained(folder, max_shard_size="60KB")
        model = model.model_copy(update=ctx.store.put_tree(folder).model_dump())
    text.mkdir()
    words = " ".join(f"Item {i * i} was counted." for i in range(60))
    (text / "documents.jsonl").write_text(json.dumps({"text": words}) + "\n")
    tree = ctx.store.put_tree(text).model_dump()
    rows = Calibration(text=NO_TEXT.model_copy(update=tree | {"uri": ""}), rows=4, row_tokens=64)
    plan = plan_for(
        model,
        items=(
            PlanItem(
                start=0,
                stop=1,
                strategy="gated_recurrence",
                params={"window": 6, "decay": "statistics", "learned_mix": "head"},
            ),
            PlanItem(start=1, stop=2, strategy="remove", params={"patch": True}),
            PlanItem(start=2, stop=4, strategy="linear"),
        ),
    )
    expected = convert_model(model, plan, rows, ctx)
    with load_streamed(ctx.store.open_tree(model.sha256), resident_layers=1) as streamed:
        memory = streamed.peak_resident_bytes
    bounded = replace(ctx, workdir=tmp_path / "bounded", memory_bytes=memory)
    assert convert_model(model, plan, rows, bounded) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_sha256": "0" * 64}, "the plan is for the model 000000000000"),
        (
            {"layers": 5, "items": (PlanItem(start=0, stop=5, strategy="keep"),)},
            "the plan covers 5 layers",
        ),
        (
            {"items": (PlanItem(start=0, stop=4, strategy="streeming"),)},
            "unknown strategy 'streeming'",
        ),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(tmp_path: Path, change: dict, message: str) -> None:
    model, ctx = inputs(tmp_path)
    with pytest.raises(InputError, match=message):
        convert_model(model, plan_for(model, **change), ROWS, ctx)
