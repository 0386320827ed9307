"""`layerwright generate`, driven as a user drives it: a process of its own each time."""

import json
import re
from pathlib import Path

import pytest
from layerwright_process import last_line, layerwright
from tiny import LAYER_SPECS, tiny_hybrid
from tiny_checkpoint import byte_tokenizer, write_checkpoint

from layerwright.tasks.hybrid.export import write_code, write_config
from layerwright.tasks.models.loading import load_checkpoint, load_tokenizer
from layerwright.tasks.offload.generation import encode

PROMPT = "The harbour master counted the ships"
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A tiny converted checkpoint with a tokenizer and a chat template."""
    folder = tmp_path_factory.mktemp("generate") / "tiny-hybrid"
    model = tiny_hybrid(LAYER_SPECS["streaming"], tie_word_embeddings=True)
    model.save_pretrained(folder)
    write_code(folder)
    write_config(folder, model.config)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return folder


def resident_text(folder: Path, prompt: str, chat: bool = False, tokens: int = 12) -> str:
    model, tokenizer = load_checkpoint(folder), load_tokenizer(folder)
    ids = encode(tokenizer, prompt, chat)
    row = model.generate(ids, max_new_tokens=tokens, do_sample=False)[0, ids.shape[1] :]
    return tokenizer.decode(row, skip_special_tokens=True)


def generate(folder: Path, *options: str):
    arguments = ("generate", str(folder), "--max-new-tokens", "12", *options)
    return layerwright(*arguments, cwd=folder.parent)


def test_every_bound_gives_the_resident_models_text(checkpoint: Path, tmp_path: Path) -> None:
    whole = last_line(generate(checkpoint, "--prompt", PROMPT, "--json"))
    assert set(whole) == {
        "text", "new_tokens", "seconds", "tokens_per_s", "peak_weight_bytes", "kv_bytes",
    }  # fmt: skip
    assert whole["text"] == resident_text(checkpoint, PROMPT)
    assert 0 < whole["new_tokens"] <= 12
    assert whole["kv_bytes"] > 0

    too_small = generate(checkpoint, "--prompt", PROMPT, "--memory", "1kB")
    assert too_small.returncode == 2
    assert "Traceback" not in too_small.stderr
    least = re.search(r"at least (\d+) bytes \((.*)\)", too_small.stderr)

    file = tmp_path / "prompt.txt"
    file.write_text(PROMPT, encoding="utf-8")
    bounded = last_line(
        generate(checkpoint, "--prompt-file", str(file), "--memory", least.group(2), "--json")
    )
    assert bounded["peak_weight_bytes"] == int(least.group(1)) < whole["peak_weight_bytes"]
    same = ("text", "new_tokens", "kv_bytes")
    assert [bounded[key] for key in same] == [whole[key] for key in same]


def test_the_text_alone_is_on_stdout(checkpoint: Path) -> None:
    result = generate(
        checkpoint,
        *("--prompt", PROMPT, "--chat", "--resident-layers", "2", "--weights", "host"),
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == resident_text(checkpoint, PROMPT, chat=True) + "\n"
    assert "tokens, " in result.stderr


def test_a_base_model_is_taken_too(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    texts = {
        last_line(generate(folder, "--prompt", PROMPT, "--json", *bound))["text"]
        for bound in ((), ("--resident-layers", "1"))
    }
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "--prompt or --prompt-file"),
        (("--prompt", "x", "--memory", "300"), "'300'"),
        (("--prompt", "x", "--memory", "1GB", "--resident-layers", "2"), "one"),
        (("--prompt", ""), "no tokens"),
    ],
)
def test_bad_input_is_refused(checkpoint: Path, options, expected: str) -> None:
    result = generate(checkpoint, *options)
    assert result.returncode == 2, result.stderr
    assert expected in result.stderr
    assert "Traceback" not in result.stderr


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "model")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    result = generate(folder, "--prompt", PROMPT, "--resident-layers", "1")
    assert result.returncode == 1
    assert re.search(r"model\.safetensors: cut off: \S+ ends at byte", result.stderr)
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    assert generate(folder, "--prompt", PROMPT).returncode == 2
