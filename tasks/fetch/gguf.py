"""A GGUF file, dequantised through Transformers into an ordinary checkpoint."""

from __future__ import annotations

import json
import mmap
import struct
from pathlib import Path

import torch
from gguf import GGUFValueType
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.weights import SHARD_BYTES

# llama.cpp's names of pre-tokenizers that split every digit off before GPT-2's rule
# (src/llama-vocab.cpp); Transformers leaves that split out
_DIGIT_BY_DIGIT = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}


def dequantise(file: Path, folder: Path, dtype: str) -> None:
    """Write weights, config, tokenizer and chat template of a GGUF file into ``folder``.

    Args:
        file: the GGUF file, with its tokenizer inside.
        folder: an empty folder.
        dtype: of the weights: ``auto`` (float32, which holds every quantised value exactly),
            ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        InputError: Transformers does not know this architecture in GGUF, or the file is broken.
    """
    wanted = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=wanted,
            # else the weights stay packed wherever a kernel for that is installed
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = read_tokenizer(file)
    except Exception as error:  # the readers raise whatever a broken file makes them stumble on
        raise InputError(
            f"{file.name} cannot be read: {' '.join(str(error).split())[:300]}",
            expected="a whole GGUF file of an architecture that Transformers reads",
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized, model.hf_quantizer = False, None  # the weights are plain by now
    model.save_pretrained(folder, max_shard_size=SHARD_BYTES)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes them the owner's alone
    tokenizer.save_pretrained(folder)
    _drop_strangers(folder / "tokenizer.json", model.config.vocab_size)


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer inside a GGUF file, with the digit rule that its ``pre`` name stands for."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and text_field(file, "tokenizer.ggml.pre") in _DIGIT_BY_DIGIT:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer


def text_field(file: Path, key: str) -> str | None:
    """One text of the metadata; gguf's own reader takes seconds, as it unpacks every token."""
    head = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", GGUFValueType.STRING)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(head)
        if at < 0:
            return None
        (length,) = struct.unpack_from("<Q", data, at + len(head))
        start = at + len(head) + 8
        return data[start : start + length].decode(errors="replace")


def _drop_strangers(path: Path, vocabulary: int) -> None:
    """Drop the unknown token that Transformers adds, past the vocabulary, where GGUF names none."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    known = [token for token in settings["added_tokens"] if token["id"] < vocabulary]
    if len(known) < len(settings["added_tokens"]):
        settings["added_tokens"] = known
        path.write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
