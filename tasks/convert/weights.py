"""Write the converted model's weights: copy the base's files, drop tensors and add fitted ones."""

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
from layerwright.tasks.models.weight_files import write_index

_LAYER = re.compile(r"^model\.layers\.(\d+)\.")


def tensor_names(config: HybridConfig) -> frozenset[str]:
    """Names of all tensors of a model; built on the meta device, so no memory is allocated."""
    with torch.device("meta"):
        return frozenset(HybridForCausalLM(config).state_dict())


def write_weights(
    source: Path, target: Path, wanted: frozenset[str], fitted: Mapping[str, Tensor]
) -> None:
    """Write the converted model's tensors, file by file as in the base.

    Drops tensors that are not wanted. Adds or replaces fitted tensors in the file that holds their
    layer. Copies a file without changes byte by byte, and omits a file without tensors. Writes an
    index if the base has several files.

    Args:
        wanted: all tensor names of the converted model. The base has all of them except fitted
            tensors, and tied tensors that it does not store.
        fitted: full name -> value in the checkpoint's dtype.

    Raises:
        IntegrityError: the base has no tensor of the layer that a fitted tensor belongs to.
    """
    files = sorted(source.glob("*.safetensors"))
    stored = {file: _names(file) for file in files}
    file_of = {name: _file_for(name, stored) for name in fitted}
    weight_map: dict[str, str] = {}
    total = 0
    for file in files:
        added = {name: fitted[name] for name in fitted if file_of[name] == file}
        kept = [name for name in stored[file] if name in wanted and name not in added]
        if len(kept) == len(stored[file]) and not added:
            shutil.copyfile(file, target / file.name)
        elif kept or added:
            with safe_open(file, framework="pt") as weights:
                tensors = {name: weights.get_tensor(name) for name in kept} | added
                save_file(tensors, target / file.name, metadata=weights.metadata())
        weight_map |= dict.fromkeys([*kept, *added], file.name)
        total += (target / file.name).stat().st_size if kept or added else 0
    if len(files) > 1:
        write_index(target, weight_map, total)


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def _file_for(name: str, stored: Mapping[Path, list[str]]) -> Path:
    """The file that holds this tensor, or else a tensor of the same layer."""
    for file, names in stored.items():
        if name in names:
            return file
    layer = _LAYER.match(name)
    for file, names in stored.items():
        if layer and any(other.startswith(layer[0]) for other in names):
            return file
    raise IntegrityError(f"the base has no weights of the layer of {name}")
