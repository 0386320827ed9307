"""Trained weights back into a checkpoint: its files with some tensors replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwright.tasks.contracts.references import LINEAGE
from layerwright.tasks.store.manifest import MANIFEST


def write_merged(
    source: Path,
    target: Path,
    values: Mapping[str, Callable[[], Tensor]],
    lineage: dict[str, Any],
    *,
    under: str = "finetune",
) -> None:
    """Write ``source`` to ``target`` with some weights replaced.

    Each is cast to the dtype that it had. Names, dtypes, shards and every other file stay as they
    are. One shard is in memory at a time.

    Args:
        target: an empty folder.
        values: weight name -> call that gives its new value, in any float dtype.
        lineage: goes into layerwright.json.
        under: the key there.
    """
    pending = dict(values)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        elif path.suffix == ".safetensors":
            _merge_shard(path, copy, pending)
        elif path != source / MANIFEST:
            shutil.copyfile(path, copy)
    assert not pending, f"no such weights in the checkpoint: {sorted(pending)}"
    file = source / LINEAGE
    record = json.loads(file.read_text()) if file.exists() else {}
    record[under] = lineage
    (target / LINEAGE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _merge_shard(source: Path, target: Path, pending: dict[str, Callable[[], Tensor]]) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            weight = file.get_tensor(name)
            if name in pending:
                value = pending.pop(name)()
                assert value.shape == weight.shape, f"{name}: {value.shape} for {weight.shape}"
                weight = value.to(weight.dtype)
            tensors[name] = weight
        save_file(tensors, target, metadata=file.metadata())
