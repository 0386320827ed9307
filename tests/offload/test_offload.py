"""Streamed layers: the resident model's output bit for bit, and a bound that holds."""

import gc
import subprocess
import sys
import sysconfig
import weakref
from pathlib import Path

import pytest
import torch
from facts import says
from safetensors.torch import load_file, save_file
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens
from tiny_checkpoint import write_checkpoint

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.export import write_code, write_config
from layerwright.tasks.models.loading import load_base, load_checkpoint
from layerwright.tasks.offload.offload import load_streamed

GREEDY = {"max_new_tokens": 10, "do_sample": False}
IDS = tiny_tokens(2, 20)


def write_hybrid(
    folder: Path, spec: str = "streaming", dtype=torch.float32, shards: bool = False, **overrides
) -> Path:
    """A tiny converted checkpoint: layers 0, 1 and 3 under `spec`, layer 2 full."""
    model = tiny_hybrid(LAYER_SPECS[spec], **overrides).to(dtype)
    model.config.dtype = dtype
    model.save_pretrained(folder, max_shard_size="60KB" if shards else "1GB")
    write_config(folder, model.config)
    assert (folder / "model.safetensors.index.json").is_file() == shards
    return folder


def answers(model) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedy tokens and logits, with the cache and without."""
    with torch.no_grad():
        return model.generate(IDS, **GREEDY), model(IDS).logits


def assert_same(model, expected: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert all(one.equal(other) for one, other in zip(answers(model), expected, strict=True))


def weight_memory() -> dict[int, int]:
    """Every buffer of bytes or storage of a parameter that is alive, by address."""
    tensors = [
        x
        for x in gc.get_objects()
        if type(x) is torch.nn.Parameter or (type(x) is torch.Tensor and x.dtype == torch.uint8)
    ]
    storages = [x.untyped_storage() for x in tensors if x.device.type == "cpu"]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


@pytest.mark.parametrize("shape", ["fp32 untied, one file", "bf16 tied, shards"])
@pytest.mark.parametrize("spec", LAYER_SPECS)
def test_output_is_the_resident_models(tmp_path: Path, spec: str, shape: str) -> None:
    low = shape.startswith("bf16")
    dtype = torch.bfloat16 if low else torch.float32
    folder = write_hybrid(tmp_path, spec, dtype, shards=low, tie_word_embeddings=low)
    resident = load_checkpoint(folder)
    expected = answers(resident)
    for layers in (1, 2, 3, None):
        with load_streamed(folder, resident_layers=layers) as streamed:
            assert_same(streamed.model, expected)
            assert streamed.model.dtype == resident.dtype
            assert not streamed.model.training
            assert streamed.residency.nbytes == streamed.peak_resident_bytes


@pytest.mark.parametrize("tied", [False, True])
def test_a_base_can_be_streamed(tmp_path: Path, tied: bool) -> None:
    folder = write_checkpoint(tmp_path / "model", tie_word_embeddings=tied)
    expected = answers(load_base(folder))
    for layers in (1, 2, 3, LAYERS):
        with load_streamed(folder, resident_layers=layers) as streamed:
            assert_same(streamed.model, expected)
            assert len(streamed.residency.streamed) == {1: 4, 2: 3, 3: 2, LAYERS: 0}[layers]


def test_layers_can_come_from_host_memory(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    expected = answers(load_checkpoint(folder))
    with load_streamed(folder, resident_layers=2, source="host") as streamed:
        (folder / "model.safetensors").unlink()  # whatever comes now does not come from there
        assert_same(streamed.model, expected)


@pytest.mark.parametrize("spec", ["streaming", "linear"])
def test_memory_stays_within_the_bound(tmp_path: Path, spec: str) -> None:
    """Counted while every layer works, from all tensors alive and not from what the model says."""
    folder = write_hybrid(tmp_path, spec)
    with torch.no_grad():
        expected = load_checkpoint(folder)(IDS).logits
    with load_streamed(folder) as streamed:
        whole = streamed.peak_resident_bytes
    with load_streamed(folder, resident_layers=1) as streamed:
        least = streamed.peak_resident_bytes
    bounds = (least, (least + whole) // 2, whole - 1, whole)
    peaks = []
    for bound in bounds:
        gc.collect()
        before = set(weight_memory())
        with load_streamed(folder, resident_bytes=bound) as streamed:
            seen = []

            def count(*ignored, before=before, seen=seen) -> None:
                now = weight_memory()
                seen.append(sum(now[address] for address in set(now) - before))

            for layer in streamed.model.model.layers:
                (layer.mlp or layer.linear).register_forward_hook(count)
            with torch.no_grad():
                assert streamed.model(IDS).logits.equal(expected)
            assert max(seen) == streamed.peak_resident_bytes <= bound
            peaks.append(streamed.peak_resident_bytes)
            del streamed, seen, count
    assert peaks == sorted(peaks)
    with pytest.raises(InputError, match=says(f"{least} bytes")):
        load_streamed(folder, resident_bytes=least - 1)
    with pytest.raises(InputError, match="at most one"):
        load_streamed(folder, resident_bytes=whole, resident_layers=1)


def test_a_failed_read_surfaces_and_can_be_mended(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    expected = answers(load_checkpoint(folder))
    file = folder / "model.safetensors"
    content = file.read_bytes()
    with load_streamed(folder, resident_layers=2) as streamed:
        file.write_bytes(content[: len(content) // 2])
        with pytest.raises(IntegrityError, match=says("model.safetensors")):
            answers(streamed.model)
        file.write_bytes(content)
        assert_same(streamed.model, expected)


def test_a_pass_that_fails_halfway_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    expected = answers(load_checkpoint(folder))

    def fail(*ignored) -> None:
        raise KeyboardInterrupt

    with load_streamed(folder, resident_layers=1) as streamed:
        for layer in (0, 3, 1):
            handle = streamed.model.model.layers[layer].mlp.register_forward_hook(fail)
            with pytest.raises(KeyboardInterrupt):
                answers(streamed.model)
            handle.remove()
        assert_same(streamed.model, expected)


def test_layers_may_run_in_any_order(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    resident = load_checkpoint(folder).model
    order = (3, 1, 2, 0, 0, 2)
    with load_streamed(folder, resident_layers=3) as streamed, torch.no_grad():
        model = streamed.model.model
        expected, placement = resident.prepare(IDS)
        actual, _ = model.prepare(IDS)
        for layer in order:
            expected = resident.layers[layer](expected, placement)
            actual = model.layers[layer](actual, placement)
            assert actual.equal(expected)


def test_a_closed_model_is_free_with_its_last_user(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    with load_streamed(folder, resident_layers=2) as streamed:
        pass
    with pytest.raises(RuntimeError, match="load it again"):
        answers(streamed.model)
    gc.disable()
    model = weakref.ref(streamed.model)
    del streamed
    assert model() is None, "freed with its last user, without the collector"
    gc.enable()


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("name", ["model.layers.2.mlp.down_proj.weight", "model.norm.weight"])
def test_weights_that_are_not_there_are_refused_at_once(tmp_path, name: str, shards: bool) -> None:
    folder = write_hybrid(tmp_path, shards=shards)
    (file,) = (f for f in folder.glob("*.safetensors") if name in load_file(f))
    whole, weights = file.read_bytes(), load_file(file)

    def refused(expected: str) -> None:
        with pytest.raises(IntegrityError) as caught:
            load_streamed(folder, resident_layers=2)
        assert file.name in str(caught.value)
        assert expected in str(caught.value)

    lacking = {n: t for n, t in weights.items() if n != name}
    save_file(lacking, file)
    refused(f"{name} is missing")
    save_file(weights | {name: weights[name][1:].contiguous()}, file)
    refused(f"{name} has the shape")
    save_file(weights | {"model.layers.2.self_attn.q_proj.bias": torch.zeros(48)}, file)
    refused("['model.layers.2.self_attn.q_proj.bias']")
    file.write_bytes(whole[:-1])
    refused("cut off: ")
    file.write_bytes(whole[:100])
    refused("cut off inside its header")
    file.unlink()
    refused("missing")


def test_a_head_that_is_stored_and_tied(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path, tie_word_embeddings=True)
    expected = answers(load_checkpoint(folder))
    weights = load_file(folder / "model.safetensors")
    head = weights["model.embed_tokens.weight"].clone()
    save_file(weights | {"lm_head.weight": head}, folder / "model.safetensors")
    with load_streamed(folder, resident_layers=1) as streamed:
        assert_same(streamed.model, expected)
    save_file(weights | {"lm_head.weight": head + 1}, folder / "model.safetensors")
    with pytest.raises(IntegrityError, match=says("lm_head.weight")):
        load_streamed(folder)


def test_another_dtype_in_the_file_is_converted(tmp_path: Path) -> None:
    folder = write_hybrid(tmp_path)
    weights = load_file(folder / "model.safetensors")
    mixed = {n: t.bfloat16() if "mlp" in n else t.double() for n, t in weights.items()}
    save_file(mixed, folder / "model.safetensors", metadata={"format": "pt"})
    resident = load_checkpoint(folder)
    assert resident.dtype == torch.float32
    with load_streamed(folder, resident_layers=1) as streamed:
        assert_same(streamed.model, answers(resident))


# Runs without the site module, so that no editable install puts the project on the path.
ACCELERATE = """
import importlib.util, sys
root, packages = sys.argv[1:]
sys.path[:0] = [packages]
assert importlib.util.find_spec("layerwright") is None
import torch
from transformers import AutoModelForCausalLM
parts = ["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"]
device_map = {name: "cpu" for name in parts}
device_map |= {f"model.layers.{i}": "disk" if i in (0, 2, 3) else "cpu" for i in range(4)}
options = {"trust_remote_code": True}
ids = torch.arange(40).view(2, 20)
greedy = {"max_new_tokens": 12, "do_sample": False}
for name in ("tied", "untied"):
    folder, offload = f"{root}/{name}", f"{root}/{name}-offload"
    resident = AutoModelForCausalLM.from_pretrained(folder, **options)
    offloaded = AutoModelForCausalLM.from_pretrained(
        folder, device_map=device_map, offload_folder=offload, **options
    )
    away = [p.is_meta for layer in offloaded.model.layers for p in layer.parameters()]
    assert any(away) and not all(away), name
    with torch.no_grad():
        assert offloaded(ids).logits.equal(resident(ids).logits), name
        generated = offloaded.generate(ids, **greedy)
        assert generated.equal(resident.generate(ids, **greedy)), name
print("same")
"""


def test_accelerate_offloads_a_checkpoint_without_this_project(tmp_path: Path) -> None:
    for name in ("tied", "untied"):
        folder = write_hybrid(tmp_path / name, "streaming", tie_word_embeddings=name == "tied")
        write_code(folder)
    packages = sysconfig.get_path("purelib")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ACCELERATE, str(tmp_path), packages],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "same"
