"""Wheels made on the spot, for a folder that serves as the package index."""

from __future__ import annotations

import zipfile
from pathlib import Path


def write_wheel(
    folder: Path, files: dict[str, bytes], dist: str = "tiny-thing", version: str = "1.0"
) -> Path:
    """A wheel that pip accepts, with ``files`` as its content."""
    folder.mkdir(parents=True, exist_ok=True)
    name = dist.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {dist}\nVersion: {version}\n"
        "Requires-Dist: a-dependency-that-nobody-has==9.9\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": "",
    }
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, data in {**files, **metadata}.items():
            wheel.writestr(member, data)
    return path
