"""A model without its weights, and where in the checkpoint's files each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedConfig

from layerwright.tasks.errors import InputError, IntegrityError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import base_config
from layerwright.tasks.offload.weight_files import StoredTensor, find_tensors

ALIGNMENT = 64  # bytes, as of a tensor that has its memory to itself
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Part:
    """One weight: the module that owns it, its file, and its first byte in the flat buffer."""

    owner: nn.Module
    leaf: str
    empty: Tensor  # on the meta device; its place while the weight is away
    stored: StoredTensor
    start: int

    def view(self, flat: Tensor) -> Tensor:
        size = self.empty.numel() * self.empty.element_size()
        return flat[self.start : self.start + size].view(self.empty.dtype).view(self.empty.shape)


class FlatWeights:
    """The weights of some modules, side by side in one buffer of bytes.

    Attributes:
        nbytes: size of the buffer.
    """

    def __init__(self, model: nn.Module, names: list[str], stored: dict[str, StoredTensor]):
        self.parts: list[Part] = []
        self.nbytes = 0
        for name in names:
            path, _, leaf = name.rpartition(".")
            owner = model.get_submodule(path)
            empty = getattr(owner, leaf)
            self.parts.append(Part(owner, leaf, empty, stored[name], self.nbytes))
            size = empty.numel() * empty.element_size()
            self.nbytes += -(-size // ALIGNMENT) * ALIGNMENT

    def read_into(self, flat: Tensor) -> None:
        """Reads all weights from their files into a CPU buffer of at least `nbytes` bytes."""
        for part in self.parts:
            part.stored.read_into(part.view(flat))

    def read(self, pinned: bool = False) -> Tensor:
        """All weights in a new CPU buffer."""
        flat = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=pinned)
        self.read_into(flat)
        return flat

    def put(self, flat: Tensor) -> None:
        """Makes the modules use the weights in a buffer, on whatever device that is."""
        for part in self.parts:
            if part.leaf in part.owner._parameters:
                weight = nn.Parameter(part.view(flat), requires_grad=False)
                part.owner._parameters[part.leaf] = weight
            else:
                part.owner._buffers[part.leaf] = part.view(flat)

    def take(self) -> None:
        """Leaves the modules without weights."""
        for part in self.parts:
            setattr(part.owner, part.leaf, part.empty)


@dataclass(frozen=True)
class Skeleton:
    """A model on the meta device and its weights in files.

    Attributes:
        model: HybridForCausalLM in evaluation mode.
        fixed: embeddings, final norm, and the head where it is not tied to the embeddings.
        layers: one each; without parts where a layer has no weights.
    """

    model: HybridForCausalLM
    fixed: FlatWeights
    layers: list[FlatWeights]


def read_skeleton(folder: Path) -> Skeleton:
    """The model of a converted checkpoint or of a base, from its config and its files' headers.

    Raises:
        InputError: not a checkpoint, or a base of a family that is not supported.
        IntegrityError: the files do not hold the weights that the config asks for; the message
            names file and tensor.
    """
    config = read_config(folder)
    stored = find_tensors(folder)
    dtype = config.dtype or next(iter(stored.values())).dtype
    with init_empty_weights():
        model = HybridForCausalLM._from_config(config, dtype=dtype).eval()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    wanted = dict(model.state_dict())
    if config.tie_word_embeddings:
        del wanted[HEAD]
    _check(folder, wanted, stored, config)
    groups: list[list[str]] = [[] for _ in range(config.num_hidden_layers)]
    fixed: list[str] = []
    for name in wanted:
        place = name.split(".")
        group = groups[int(place[2])] if place[:2] == ["model", "layers"] else fixed
        group.append(name)
    layers = [FlatWeights(model, names, stored) for names in groups]
    return Skeleton(model, FlatWeights(model, fixed, stored), layers)


def read_config(folder: Path) -> HybridConfig:
    """The hybrid configuration of a converted checkpoint or of a base.

    Raises:
        InputError: not a checkpoint, or a base of a family that is not supported.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            "not a checkpoint: there is no config.json in it",
            where=str(folder),
            expected="the folder of a converted checkpoint or of a base model",
        )
    fields, _ = PreTrainedConfig.get_config_dict(folder)
    if fields.get("model_type") == HybridConfig.model_type:
        return HybridConfig.from_pretrained(folder)
    return base_config(folder)


def _check(
    folder: Path,
    wanted: dict[str, Tensor],
    stored: dict[str, StoredTensor],
    config: HybridConfig,
) -> None:
    files = sorted({tensor.file.name for tensor in stored.values()})
    for name, empty in wanted.items():
        if name not in stored:
            raise IntegrityError(f"{folder}: {name} is missing from {', '.join(files)}")
        if stored[name].shape != tuple(empty.shape):
            raise IntegrityError(
                f"{stored[name].file}: {name} has the shape {stored[name].shape}, the config asks "
                f"for {tuple(empty.shape)}"
            )
    # Old Llama checkpoints hold tables that follow from the config.
    extra = sorted(n for n in set(stored) - set(wanted) if not n.endswith("rotary_emb.inv_freq"))
    if config.tie_word_embeddings and HEAD in extra:
        extra.remove(HEAD)
        one, other = (stored[name] for name in (HEAD, EMBEDDINGS))
        if not torch.equal(_load(one), _load(other)):
            raise IntegrityError(
                f"{one.file}: {HEAD} differs from {EMBEDDINGS}, to which the config ties it"
            )
    if extra:
        raise IntegrityError(f"{stored[extra[0]].file}: the config has no place for {extra}")


def _load(stored: StoredTensor) -> Tensor:
    tensor = torch.empty(stored.shape, dtype=stored.dtype)
    stored.read_into(tensor)
    return tensor
