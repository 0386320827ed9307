"""The base's files of weights as the converted model wants them: copied, thinned out, extended."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from layerwright.tasks.errors import IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

INDEX = "model.safetensors.index.json"
_LAYER = re.compile(r"^model\.layers\.(\d+)\.")


def tensor_names(config: HybridConfig) -> frozenset[str]:
    """Names of all tensors of a model, without its weights ever being made."""
    with torch.device("meta"):
        return frozenset(HybridForCausalLM(config).state_dict())


def write_weights(
    source: Path, target: Path, wanted: frozenset[str], fitted: Mapping[str, Tensor]
) -> None:
    """Write a base's safetensors files with the tensors that the converted model has.

    Tensors that are not wanted are left out, fitted ones are replaced or added to the file that
    holds their layer. A file in which nothing changes is copied byte by byte, one that nothing is
    left of is not written. Several files get an index.

    Args:
        source, target: folders.
        wanted: all names of the converted model; the base lacks none but fitted ones, and tied
            ones that it does not store.
        fitted: full name -> value in the checkpoint's dtype.

    Raises:
        IntegrityError: the base lacks a layer that a fitted tensor belongs to.
    """
    files = sorted(source.glob("*.safetensors"))
    held = {file: _names(file) for file in files}
    home = {name: _home(name, held) for name in fitted}
    where: dict[str, str] = {}
    total = 0
    for file in files:
        given = {name: fitted[name] for name in fitted if home[name] == file}
        kept = [name for name in held[file] if name in wanted and name not in given]
        if len(kept) == len(held[file]) and not given:
            shutil.copyfile(file, target / file.name)
        elif kept or given:
            with safe_open(file, framework="pt") as weights:
                tensors = {name: weights.get_tensor(name) for name in kept} | given
                save_file(tensors, target / file.name, metadata=weights.metadata())
        where |= dict.fromkeys([*kept, *given], file.name)
        total += (target / file.name).stat().st_size if kept or given else 0
    if len(files) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (target / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def _home(name: str, held: Mapping[Path, list[str]]) -> Path:
    """The file that holds the tensor itself, else one that holds a tensor of its layer."""
    for file, names in held.items():
        if name in names:
            return file
    layer = _LAYER.match(name)
    for file, names in held.items():
        if layer and any(other.startswith(layer[0]) for other in names):
            return file
    raise IntegrityError(f"the base has no weights of the layer that {name} belongs to")
