"""Loads models and tokenizers from local folders, as this project's own classes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    """Loads a base model as a hybrid of full-attention layers, in evaluation mode.

    Args:
        dtype: None keeps the dtype of the checkpoint.

    Raises:
        InputError: as in `base_config`.
        IntegrityError: the weights do not match the config.
    """
    return _load(folder, base_config(folder), device, dtype)


def load_checkpoint(
    folder: Path, device: str = "cpu", dtype: torch.dtype | None = None
) -> HybridForCausalLM:
    """Loads a converted checkpoint as this project's classes; code in the checkpoint is not run.

    Raises:
        IntegrityError: the weights do not match the config.
    """
    return _load(folder, HybridConfig.from_pretrained(folder), device, dtype)


def base_config(folder: Path) -> HybridConfig:
    """The hybrid configuration of a base model; every layer stays as in the base.

    Raises:
        InputError: the base's family, or a feature of the base, is not supported.
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
    """The dtype of the weights according to the base's config; fp32 if it does not say."""
    return AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype or torch.float32


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Loads the tokenizer of a base or a converted checkpoint; code in the folder is not run."""
    # without trust_remote_code, Transformers may ask for permission on stdin
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _load(
    folder: Path, config: HybridConfig, device: str, dtype: torch.dtype | None
) -> HybridForCausalLM:
    with _no_weight_bar():
        loaded: Any = HybridForCausalLM.from_pretrained(
            folder, config=config, dtype=dtype or "auto", output_loading_info=True
        )
    model, info = loaded
    mismatches = {part: sorted(info[part]) for part in info if info[part]}
    if mismatches:
        raise IntegrityError(f"{folder}: the weights do not match the config: {mismatches}")
    return model.to(device).eval()


@contextmanager
def _no_weight_bar() -> Iterator[None]:
    """Hides Transformers' progress bar; a step shows its own."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()
