"""Read the license of a base model from its files."""

from __future__ import annotations

from pathlib import Path

import yaml
from huggingface_hub.repocard import metadata_load

from layerwright.tasks.fetch.gguf import text_field

README = "README.md"


def license_of(folder: Path, gguf: Path | None = None) -> str | None:
    """Return the name of the license, or None if the files do not state it.

    Args:
        folder: the checkpoint's folder; its README.md states ``license`` in the front matter.
        gguf: the model's GGUF file, if it is one; its ``general.license`` is used instead.
    """
    if gguf is not None:
        return text_field(gguf, "general.license")
    if not (folder / README).is_file():
        return None
    try:
        license = (metadata_load(folder / README) or {}).get("license")
    except (ValueError, yaml.YAMLError):  # the README is not a model card
        return None
    return license if isinstance(license, str) else None
