"""Greedy text generation from a checkpoint, with a memory bound on its weights."""

import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.modeling import convert_file_size_to_int
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.generation.streamers import BaseStreamer

from layerwright.tasks.contracts.checkpoint import Generated
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.models.skeleton import read_config
from layerwright.tasks.offload.offload import Source, load_streamed
from layerwright.tasks.progress import Bar, progress


class TokenBar(BaseStreamer):
    """Advances a progress bar for each token that `generate` produces."""

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
) -> Generated:
    """Continues a prompt by greedy decoding, with a converted checkpoint or a base model.

    Args:
        chat: treat the prompt as a user's message and apply the tokenizer's chat template.
        memory: bound on the weights in the device's memory, such as "300MB" or "2GiB".
        resident_layers, source: as in `load_streamed`.

    Raises:
        InputError: the folder is not a checkpoint, or has no tokenizer or chat template; the prompt
            is empty; the size is invalid or too small.
    """
    resident_bytes = None if memory is None else size_in_bytes(memory)
    read_config(folder)  # its error about the folder is clearer than the tokenizer's
    tokenizer = find_tokenizer(folder)
    ids_1T = encode(tokenizer, prompt, chat).to(device)
    bounds = {"resident_bytes": resident_bytes, "resident_layers": resident_layers}
    loaded = load_streamed(folder, device, **bounds, source=source)
    with loaded, progress() as bar:
        model: Any = loaded.model
        cache = HybridCache(model.config)
        started = time.perf_counter()
        row = model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            past_key_values=cache,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            streamer=TokenBar(bar, max_new_tokens),
        )[0]
        seconds = time.perf_counter() - started
        new = row[ids_1T.shape[1] :].tolist()
        text: Any = tokenizer.decode(new, skip_special_tokens=True)
        return Generated(
            text=text,
            new_tokens=len(new),
            seconds=round(seconds, 3),
            tokens_per_s=round(len(new) / seconds, 2),
            peak_weight_bytes=loaded.peak_resident_bytes,
            kv_bytes=cache.nbytes(),
        )


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt itself, or the content of a file.

    Raises:
        InputError: not exactly one of the two is given, or the file is not text.
    """
    if (prompt is None) == (file is None):
        raise InputError(
            "give either a prompt or a file with a prompt", expected="--prompt or --prompt-file"
        )
    if file is None:
        return str(prompt)
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the prompt: {error}", where=str(file)) from error


def find_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer; InputError if the folder has none."""
    try:
        return load_tokenizer(folder)
    except (OSError, ValueError) as error:
        what = "no tokenizer can be loaded from this folder"
        raise InputError(what, where=str(folder), expected="tokenizer.json") from error


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, chat: bool) -> Tensor:
    """Token ids (1, T) of a prompt.

    Raises:
        InputError: the prompt has no tokens, or ``chat`` is set and there is no chat template.
    """
    if not chat:
        ids = tokenizer(prompt).input_ids
    elif tokenizer.chat_template is None:
        raise InputError("this checkpoint's tokenizer has no chat template", remedy="omit --chat")
    else:
        messages = [{"role": "user", "content": prompt}]
        encoded: Any = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True
        )
        ids = encoded.input_ids
    if not ids:
        raise InputError("the prompt has no tokens", where="prompt")
    return torch.tensor([ids])


def size_in_bytes(size: str) -> int:
    """Bytes of a size such as 300MB, 1.5GB (powers of ten) or 2GiB (powers of two)."""
    try:
        # upper case, because accelerate reads the lower-case b of "300mb" as bits
        return convert_file_size_to_int(size.strip().upper())
    except (ValueError, OverflowError):
        raise InputError(
            f"{size!r} is not a size", where="memory", expected="such as 300MB, 1.5GB or 2GiB"
        ) from None
