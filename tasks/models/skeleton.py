"""A model without its weights, and the positions of its weights in the checkpoint's files."""

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
from layerwright.tasks.models.weight_files import DTYPES, StoredTensor, find_tensors

ALIGNMENT = 64  # bytes; the alignment of separately allocated tensors
HEAD, EMBEDDINGS = "lm_head.weight", "model.embed_tokens.weight"


@dataclass(frozen=True)
class Part:
    """One weight: the module that owns it, its file, and its first byte in the flat buffer."""

    owner: nn.Module
    leaf: str
    empty: Tensor  # on the meta device; it replaces the weight while that is unloaded
    stored: StoredTensor
    start: int

    def view(self, flat: Tensor) -> Tensor:
        size = self.empty.numel() * self.empty.element_size()
        return flat[self.start : self.start + size].view(self.empty.dtype).view(self.empty.shape)


class FlatWeights:
    """The weights of some modules, side by side in one buffer of ``nbytes`` bytes."""

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
        """Reads all weights into a CPU buffer of at least `nbytes` bytes."""
        for part in self.parts:
            part.stored.read_into(part.view(flat))

    def read(self, pinned: bool = False) -> Tensor:
        """Reads all weights into a new CPU buffer."""
        flat = torch.empty(self.nbytes, dtype=torch.uint8, pin_memory=pinned)
        self.read_into(flat)
        return flat

    def put(self, flat: Tensor) -> None:
        """Makes the modules use the weights in a buffer, on any device."""
        for part in self.parts:
            owner, leaf, weight = part.owner, part.leaf, part.view(flat)
            if leaf in owner._parameters:
                owner._parameters[leaf] = nn.Parameter(weight, requires_grad=False)
            else:
                owner._buffers[leaf] = weight

    def take(self) -> None:
        """Removes the weights from the modules."""
        for part in self.parts:
            setattr(part.owner, part.leaf, part.empty)


@dataclass(frozen=True)
class Skeleton:
    """A model in evaluation mode on the meta device, with its weights in files.

    ``fixed`` are embeddings, final norm, and the head if it is not tied to the embeddings.
    """

    model: HybridForCausalLM
    fixed: FlatWeights
    layers: list[FlatWeights]


def read_skeleton(folder: Path) -> Skeleton:
    """The model of a converted checkpoint or a base, from its config and its files' headers.

    Raises:
        InputError: as in `read_config`.
        IntegrityError: the files do not hold the weights that the config requires.
    """
    config = read_config(folder)
    stored = find_tensors(folder)
    dtype = config.dtype or DTYPES[next(iter(stored.values())).dtype]
    with init_empty_weights():
        model = HybridForCausalLM._from_config(config, dtype=dtype).eval()
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    expected = dict(model.state_dict())
    if config.tie_word_embeddings:
        del expected[HEAD]
    _check(folder, expected, stored, config)
    groups: list[list[str]] = [[] for _ in range(config.num_hidden_layers)]
    fixed: list[str] = []
    for name in expected:
        path = name.split(".")
        (groups[int(path[2])] if path[:2] == ["model", "layers"] else fixed).append(name)
    layers = [FlatWeights(model, names, stored) for names in groups]
    return Skeleton(model, FlatWeights(model, fixed, stored), layers)


def read_config(folder: Path) -> HybridConfig:
    """The hybrid configuration of a converted checkpoint or a base.

    Raises:
        InputError: the folder is not a checkpoint, or the base's family is not supported.
    """
    if not (folder / "config.json").is_file():
        raise InputError(
            "not a checkpoint: the folder has no config.json",
            where=str(folder),
            expected="the folder of a converted checkpoint or of a base model",
        )
    fields, _ = PreTrainedConfig.get_config_dict(folder)
    if fields.get("model_type") == HybridConfig.model_type:
        return HybridConfig.from_pretrained(folder)
    return base_config(folder)


def _check(
    folder: Path, expected: dict[str, Tensor], stored: dict[str, StoredTensor], config: HybridConfig
) -> None:
    files = sorted({tensor.file.name for tensor in stored.values()})
    for name, empty in expected.items():
        if name not in stored:
            raise IntegrityError(f"{folder}: {name} is missing from {', '.join(files)}")
        if stored[name].shape != tuple(empty.shape):
            raise IntegrityError(
                f"{stored[name].file}: {name} has the shape {stored[name].shape}, but the config "
                f"requires {tuple(empty.shape)}"
            )
    # Old Llama checkpoints store tables that are computed from the config.
    extra = sorted(n for n in set(stored) - set(expected) if not n.endswith("rotary_emb.inv_freq"))
    if config.tie_word_embeddings and HEAD in extra:
        extra.remove(HEAD)
        head, embeddings = (stored[name] for name in (HEAD, EMBEDDINGS))
        if not torch.equal(_load(head), _load(embeddings)):
            raise IntegrityError(
                f"{head.file}: {HEAD} differs from {EMBEDDINGS}, but the config ties them"
            )
    if extra:
        raise IntegrityError(
            f"{stored[extra[0]].file}: the config does not expect the tensors {extra}"
        )


def _load(stored: StoredTensor) -> Tensor:
    tensor = torch.empty(stored.shape, dtype=DTYPES[stored.dtype])
    stored.read_into(tensor)
    return tensor
