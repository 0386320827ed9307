"""The license of a base model, as its own files say it."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub.repocard import metadata_load

from layerwright.tasks.fetch.gguf import text_field

README = "README.md"


def license_of(folder: Path, gguf: Path | None = None) -> str | None:
    """The license's name; None where nothing says it.

    Args:
        folder: of the checkpoint's own files: the ``license`` at the head of its README.md.
        gguf: the model's GGUF file, where it is one: its ``general.license``.
    """
    if gguf is not None:
        return text_field(gguf, "general.license")
    if not (folder / README).is_file():
        return None
    try:
        told = (metadata_load(folder / README) or {}).get("license")
    except (ValueError, yaml.YAMLError):  # a README that is no model card
        return None
    return told if isinstance(told, str) else None
