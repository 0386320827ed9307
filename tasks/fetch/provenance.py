"""Find the license of a source, and record source, files and license in ``source.json``."""

import json
from pathlib import Path

import yaml
from huggingface_hub.repocard import metadata_load

from layerwright.tasks.disk import sha256_file

SOURCE, README = "source.json", "README.md"


def record_files(
    folder: Path, source: str, files: Path, names: list[str], license: str | None = None
) -> None:
    """Write ``source.json``: the source, the path, bytes and sha256 of its files, and the license;
    The record has no time and no local path, so the same source gives the same bytes.
    """
    entries = [
        {"path": name, "bytes": (files / name).stat().st_size, "sha256": sha256_file(files / name)}
        for name in names
    ]
    stated = {"license": license} if license else {}
    record = {"source": source, **stated, "files": entries}
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (folder / SOURCE).write_text(text + "\n", encoding="utf-8")


def license_of(folder: Path) -> str | None:
    """The license's name, from the front matter of README.md, if stated."""
    if not (folder / README).is_file():
        return None
    try:
        license = (metadata_load(folder / README) or {}).get("license")
    except (ValueError, yaml.YAMLError):  # the README is not a model card
        return None
    return license if isinstance(license, str) else None
