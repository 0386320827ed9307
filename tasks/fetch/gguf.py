"""A GGUF file, dequantised through Transformers into an ordinary checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from tasks.errors import InputError
from tasks.fetch.weights import SHARD_BYTES

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
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=wanted)
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


def read_tokenizer(file: Path) -> PreTrainedTokenizerBase:
    """The tokenizer inside a GGUF file, with the digit rule that its ``pre`` name stands for."""
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    field = GGUFReader(file).fields.get("tokenizer.ggml.pre")
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and field is not None and field.contents() in _DIGIT_BY_DIGIT:
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    return tokenizer
