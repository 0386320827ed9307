"""Write a checkpoint with some of its weights replaced by trained weights."""

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
    key: str = "finetune",
) -> None:
    """Write ``source`` to ``target`` with some weights replaced.

    A new value is cast to the dtype of the weight that it replaces. Names, dtypes, shards and all
    other files stay the same. A single shard is in memory at a time.

    Args:
        target: an empty folder.
        values: weight name -> function that returns its new value, in any float dtype.
        lineage: written to layerwright.json.
        key: the lineage's key in that file.
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
    assert not pending, f"the checkpoint has no weights {sorted(pending)}"
    file = source / LINEAGE
    record = json.loads(file.read_text()) if file.exists() else {}
    record[key] = lineage
    (target / LINEAGE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _merge_shard(source: Path, target: Path, pending: dict[str, Callable[[], Tensor]]) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - not a mapping
            weight = file.get_tensor(name)
            if name in pending:
                value = pending.pop(name)()
                assert value.shape == weight.shape, f"{name}: {value.shape} for {weight.shape}"
                weight = value.to(weight.dtype)
            tensors[name] = weight
        save_file(tensors, target, metadata=file.metadata())
