"""Dequantise a GGUF file, through Transformers, to an ordinary checkpoint."""

import json
import mmap
import struct
from pathlib import Path

import torch
from gguf import GGUFValueType
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, PreTrainedTokenizerBase

from layerwright.tasks.errors import InputError
from layerwright.tasks.fetch.sources.source import one_line
from layerwright.tasks.fetch.weights import SHARD_BYTES

# llama.cpp's names for the pre-tokenizers that split off every digit before they apply GPT-2's
# rule (src/llama-vocab.cpp); Transformers does not apply that split
_DIGIT_BY_DIGIT = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"}


def dequantise(file: Path, folder: Path, dtype: str) -> None:
    """Write the weights, config, tokenizer and chat template of a GGUF file to an empty folder.

    ``dtype``: dtype of the written weights: ``float32``, ``bfloat16``, ``float16`` or ``auto``
    (float32, which holds every quantised value exactly). InputError if Transformers cannot read
    this architecture from GGUF, or the file is broken.
    """
    wanted = torch.float32 if dtype == "auto" else getattr(torch, dtype)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            dtype=wanted,
            # without it, the weights stay packed where a kernel for packed weights is installed
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = read_tokenizer(file)
    except Exception as error:  # a broken file can make the readers raise any exception
        raise InputError(
            f"{file.name} cannot be read: {one_line(error)}",
            expected="a complete GGUF file of an architecture that Transformers reads",
        ) from error
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # save_pretrained must treat the weights as plain: they are dequantised now
    model.is_quantized = False  # type: ignore[assignment]
    model.hf_quantizer = None  # type: ignore[assignment]
    model.save_pretrained(folder, max_shard_size=SHARD_BYTES)
    for weights in folder.glob("*.safetensors"):
        weights.chmod(0o644)  # safetensors makes the files readable by their owner only
    tokenizer.save_pretrained(folder)
    _drop_tokens_past_vocabulary(folder / "tokenizer.json", model.config.vocab_size)


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """Read the tokenizer inside a GGUF file, and add the digit split that its ``pre`` implies."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and text_field(file, "tokenizer.ggml.pre") in _DIGIT_BY_DIGIT:
        digits = pre_tokenizers.Digits(individual_digits=True)
        rest = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    return tokenizer


def text_field(file: Path, key: str) -> str | None:
    """Read a string field of the metadata; gguf's own reader needs seconds for the vocabulary."""
    head = struct.pack("<Q", len(key)) + key.encode() + struct.pack("<I", GGUFValueType.STRING)
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(head)
        if at < 0:
            return None
        (length,) = struct.unpack_from("<Q", data, at + len(head))
        start = at + len(head) + 8
        return data[start : start + length].decode(errors="replace")


def _drop_tokens_past_vocabulary(path: Path, vocabulary: int) -> None:
    """Drop the unknown token that Transformers adds past the vocabulary if GGUF defines none."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    known = [token for token in settings["added_tokens"] if token["id"] < vocabulary]
    if len(known) < len(settings["added_tokens"]):
        settings["added_tokens"] = known
        path.write_text(json.dumps(settings, ensure_ascii=False, indent=2), encoding="utf-8")
