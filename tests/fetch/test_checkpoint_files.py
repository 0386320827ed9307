"""Which files make up a checkpoint, by their names."""

import pytest
from facts import says

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.checkpoint_files import pick_checkpoint

SETTINGS = ["config.json", "tokenizer.json"]


def test_the_checkpoint_at_the_top_and_nothing_beside_it() -> None:
    others = ["model.fp16.safetensors", "original/consolidated.safetensors", "q4.gguf",
              "small/model.safetensors", "small/config.json"]  # fmt: skip
    names = [*SETTINGS, "model.safetensors", *others]
    assert pick_checkpoint("x", names) == ["config.json", "model.safetensors", "tokenizer.json"]


def test_one_below_the_top_is_found() -> None:
    names = [f"pkg/weights/{n}" for n in (*SETTINGS, "model.safetensors")]
    assert pick_checkpoint("x", [*names, "pkg/other.json"]) == sorted(names)


def test_shards_must_be_complete() -> None:
    shards = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]
    picked = pick_checkpoint("x", [*SETTINGS, *shards, "consolidated.safetensors"])
    assert picked == sorted([*SETTINGS, *shards])
    with pytest.raises(InputError, match="shard 2 of 3"):
        pick_checkpoint("x", [*SETTINGS, shards[0], shards[2]])


def test_one_gguf_file() -> None:
    assert pick_checkpoint("x", ["pkg/a.gguf", "pkg/info.json"]) == ["pkg/a.gguf"]


@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        (["model.safetensors"], "config.json and a tokenizer"),
        (["model.safetensors", "tokenizer.json"], "config.json"),
        (["model.safetensors", "config.json", "vocab.json"], "lacks a tokenizer"),
    ],
)
def test_what_is_missing_is_named(names: list[str], lacking: str) -> None:
    with pytest.raises(InputError, match=lacking):
        pick_checkpoint("x", names)


def test_several_models_are_listed() -> None:
    names = [f"{size}/{n}" for size in ("a", "b") for n in (*SETTINGS, "model.safetensors")]
    with pytest.raises(InputError, match=says("2 models", "a, b")):
        pick_checkpoint("x", names)
    with pytest.raises(InputError, match=r"q4\.gguf, q8\.gguf"):
        pick_checkpoint("x", ["q4.gguf", "q8.gguf"])
