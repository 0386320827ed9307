"""Models and tokenizers from local folders, in the project's own classes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.families import from_base_config
from layerwright.tasks.hybrid.modeling import HybridForCausalLM


def load_base(
    folder: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> HybridForCausalLM:
    """A base model as a hybrid whose layers are all full attention, in evaluation mode.

    Args:
        folder: a normalised checkpoint.
        dtype: None keeps the checkpoint's.

    Raises:
        InputError: the base's family, or something about it, is not supported.
        IntegrityError: its weights are not those that its config asks for.
    """
    return _load(folder, base_config(folder), device, dtype)


def load_checkpoint(
    folder: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> HybridForCausalLM:
    """A converted checkpoint, in this tree's classes: the code inside the checkpoint is not run.

    Raises:
        IntegrityError: its weights are not those that its config asks for.
    """
    return _load(folder, HybridConfig.from_pretrained(folder), device, dtype)


def base_config(folder: Path) -> HybridConfig:
    """The hybrid configuration of a base model, every layer full.

    Raises:
        InputError: the base's family, or something about it, is not supported.
    """
    try:
        return from_base_config(AutoConfig.from_pretrained(folder))
    except ValueError as error:
        raise InputError(
            str(error),
            where="model",
            remedy="`layerwright methods` lists the families that can be converted",
        ) from error


def stored_dtype(folder: Path) -> torch.dtype:
    """What a base's config says that its weights are stored in; fp32 where it says nothing."""
    return AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype or torch.float32


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a base or of a converted checkpoint; code inside it is not run."""
    # without a word on remote code, Transformers asks for leave on stdin
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _load(
    folder: Path, config: HybridConfig, device: str, dtype: torch.dtype | None
) -> HybridForCausalLM:
    with _no_weight_bar():
        model, found = HybridForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype or "auto", output_loading_info=True
        )
    wrong = {part: sorted(found[part]) for part in found if found[part]}
    if wrong:
        raise IntegrityError(f"{folder}: the weights do not fit the config: {wrong}")
    return model.to(device).eval()


@contextmanager
def _no_weight_bar() -> Iterator[None]:
    """Without Transformers' own bar: a step shows one bar, its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
