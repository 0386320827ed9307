"""Greedy text from a checkpoint, with its weights under a bound of memory."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.modeling import convert_file_size_to_int
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.models.skeleton import read_config
from layerwright.tasks.offload.offload import Source, load_streamed
from layerwright.tasks.progress import Bar, progress


class TokenBar(BaseStreamer):
    """Advances a progress bar by each token that `generate` hands over."""

    def __init__(self, bar: Bar, total: int):
        self.bar, self.job = bar, bar.add_task("generate", total=total)
        self.prompt_seen = False

    def put(self, value: Tensor) -> None:
        if self.prompt_seen:
            self.bar.advance(self.job)
        self.prompt_seen = True

    def end(self) -> None:
        pass


def generate_text(
    folder: Path,
    prompt: str,
    *,
    chat: bool = False,
    max_new_tokens: int = 128,
    memory: str | None = None,
    resident_layers: int | None = None,
    source: Source = "disk",
    device: str = "cpu",
) -> dict[str, Any]:
    """Continues a prompt, always with the likeliest token.

    Args:
        folder: a converted checkpoint or a base model.
        chat: the prompt is a user's message, put into the tokenizer's chat template.
        memory: bound on the weights that the device holds, such as "300MB" or "2GiB".
        resident_layers, source: as in `load_streamed`.

    Returns:
        text (without the prompt), new_tokens, seconds (prompt and new tokens, without loading),
        tokens_per_s, peak_weight_bytes (on the device), kv_bytes (of the cache at the end).

    Raises:
        InputError: not a checkpoint, no tokenizer or chat template in it, an empty prompt, a size
            that cannot be read, or a bound that is too small.
    """
    resident_bytes = None if memory is None else size_in_bytes(memory)
    read_config(folder)  # says what is wrong with the folder better than the tokenizer would
    tokenizer = find_tokenizer(folder)
    ids_1T = encode(tokenizer, prompt, chat).to(device)
    loaded = load_streamed(
        folder,
        device,
        resident_bytes=resident_bytes,
        resident_layers=resident_layers,
        source=source,
    )
    with loaded, progress() as bar:
        cache = HybridCache(loaded.model.config)
        started = time.perf_counter()
        row = loaded.model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            streamer=TokenBar(bar, max_new_tokens),
        )[0]
        seconds = time.perf_counter() - started
        new = row[ids_1T.shape[1] :].tolist()
        return {
            "text": tokenizer.decode(new, skip_special_tokens=True),
            "new_tokens": len(new),
            "seconds": round(seconds, 3),
            "tokens_per_s": round(len(new) / seconds, 2),
            "peak_weight_bytes": loaded.peak_resident_bytes,
            "kv_bytes": cache.nbytes(),
        }


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt itself, or what a file holds.

    Raises:
        InputError: not exactly one of the two, or a file that is no text.
    """
    if (prompt is None) == (file is None):
        raise InputError("give a prompt or a file with one", expected="--prompt or --prompt-file")
    if file is None:
        return prompt
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompt: {error}", where=str(file)) from error


def find_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer.

    Raises:
        InputError: there is none.
    """
    try:
        return load_tokenizer(folder)
    except (OSError, ValueError) as error:
        raise InputError(
            "no tokenizer can be loaded from it", where=str(folder), expected="tokenizer.json"
        ) from error


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: bool) -> Tensor:
    """Token ids (1, T) of a prompt.

    Raises:
        InputError: no tokens, or a chat is wanted of a tokenizer without a template.
    """
    if not chat:
        ids = tokenizer(prompt).input_ids
    elif tokenizer.chat_template is None:
        raise InputError("this checkpoint's tokenizer has no chat template", remedy="omit --chat")
    else:
        messages = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        ).input_ids
    if not ids:
        raise InputError("the prompt has no tokens", where="prompt")
    return torch.tensor([ids])


def size_in_bytes(size: str) -> int:
    """Bytes of a size such as 300MB, 1.5GB (powers of ten) or 2GiB (of two).

    Raises:
        InputError: not a size.
    """
    try:
        # In capitals: it would take the small b of "300mb" for bits.
        return convert_file_size_to_int(size.strip().upper())
    except (ValueError, OverflowError):
        raise InputError(
            f"{size!r} is not a size", where="memory", expected="such as 300MB, 1.5GB or 2GiB"
        ) from None
