"""Adapters back into the weights: the input checkpoint with some of its tensors replaced."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tasks.store import MANIFEST

LINEAGE = "layerwright.json"


def write_merged(
    source: Path,
    target: Path,
    changes: Mapping[str, Callable[[], Tensor]],
    lineage: dict[str, Any],
) -> None:
    """Write ``source`` to ``target`` with each changed weight W replaced by W + change.

    The sum is taken in fp32 and cast back to the tensor's own dtype. Names, dtypes, shards and
    every other file stay as they are. One shard is in memory at a time.

    Args:
        target: an empty folder.
        changes: weight name -> call that gives an fp32 tensor of the same shape.
        lineage: goes into layerwright.json under ``finetune``.
    """
    pending = dict(changes)
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir()
        elif path.suffix == ".safetensors":
            _merge_shard(path, copy, pending)
        elif path != source / MANIFEST:
            shutil.copyfile(path, copy)
    assert not pending, f"no such weights in the checkpoint: {sorted(pending)}"
    record = json.loads((source / LINEAGE).read_text())
    record["finetune"] = lineage
    (target / LINEAGE).write_text(json.dumps(record, indent=2, sort_keys=True) + "\n")


def _merge_shard(source: Path, target: Path, pending: dict[str, Callable[[], Tensor]]) -> None:
    tensors = {}
    with safe_open(source, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - a safetensors handle is no mapping
            weight = file.get_tensor(name)
            if name in pending:
                weight = (weight.float() + pending.pop(name)()).to(weight.dtype)
            tensors[name] = weight
        save_file(tensors, target, metadata=file.metadata())
