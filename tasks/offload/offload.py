"""Layer-wise weight offloading: some layers have their weights in memory only while they run.

The output is bit-identical to the resident model's, because the same kernels use the same weights.
Accelerate can also run layers from disk. Here the bound in bytes is exact, and a layer can keep its
weights while many rows pass through it or a gradient is taken (`at_work`), so that a pass over many
rows reads the model once (benchmarks/2026-12-01-offload.md).
"""

import contextlib
import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.layer_turn import LayerTurn
from layerwright.tasks.models.skeleton import FlatWeights, read_skeleton
from layerwright.tasks.offload.layer_slot import LayerSlot
from layerwright.tasks.offload.residency import Residency, plan_residency
from layerwright.tasks.passes.states import Keep, Spill

Source = Literal["disk", "host"]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
MMAP_BYTES = 1 << 20


@dataclass(frozen=True)
class StreamedModel:
    """An offloaded model; as a context manager it frees its buffer at the end.

    Attributes:
        model: HybridForCausalLM in evaluation mode, used like any other model, but for one forward
            pass at a time.
        residency: which layers stay in memory and which are offloaded.
        slot: the buffer of the offloaded layers; None if all layers stay.
        peak_resident_bytes: largest number of bytes of weights in the device's memory. Copies in
            host memory (source "host") are not included, even if the device is the CPU.
    """

    model: HybridForCausalLM
    residency: Residency
    slot: LayerSlot | None
    peak_resident_bytes: int

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def keep_states(self, folder: Path) -> Keep:
        """The storage for hidden states of rows: files if layers are offloaded, else memory."""
        return tuple if self.slot is None else Spill(folder)

    def close(self) -> None:
        """Frees the buffer; a model with offloaded layers cannot run afterwards."""
        if self.slot is not None:
            self.slot.close()


def load_streamed(
    folder: Path,
    device: str = "cpu",
    *,
    resident_bytes: int | None = None,
    resident_layers: int | None = None,
    source: Source = "disk",
) -> StreamedModel:
    """Loads a converted checkpoint or a base model with its weights under a memory bound.

    Embeddings, final norm and head stay in memory, and as many layers as the bound allows
    (see `plan_residency`). The other layers share one buffer. The bound does not include
    activations and the KV cache. Code in the checkpoint is not run.

    Args:
        resident_bytes, resident_layers: the bound; at most one of them. Without a bound all layers
            stay in memory.
        source: where offloaded layers are read from: "disk", the checkpoint's files, or "host",
            host memory (pinned if the device is CUDA).

    Raises:
        InputError: the folder is not a supported checkpoint, or no layer fits within the bound; no
            weights were read.
        IntegrityError: the files do not hold the weights that the config requires.
    """
    skeleton = read_skeleton(folder)
    fixed, sizes = skeleton.fixed.nbytes, [layer.nbytes for layer in skeleton.layers]
    residency = plan_residency(fixed, sizes, resident_bytes, resident_layers)
    model, torch_device = skeleton.model, torch.device(device)
    resident_total = _put(skeleton.fixed, torch_device)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    for layer, weights in enumerate(skeleton.layers):
        if layer not in residency.streamed:
            resident_total += _put(weights, torch_device)
    for module in model.modules():  # tables computed from the config, such as RoPE's
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                module._buffers[name] = buffer.to(torch_device)
    if not residency.streamed:
        return StreamedModel(model, residency, None, resident_total)
    return_freed_memory()
    streamed = {layer: skeleton.layers[layer] for layer in residency.streamed}
    slot = LayerSlot(streamed, residency.slot_bytes, torch_device, on_host=source == "host")
    for layer in residency.streamed:
        LayerTurn(slot, layer).attach(model.model.layers[layer])
    return StreamedModel(model, residency, slot, resident_total + residency.slot_bytes)


def _put(weights: FlatWeights, device: torch.device) -> int:
    """Reads weights and assigns them permanently; returns the bytes they take."""
    flat = weights.read().to(device)
    weights.put(flat)
    return flat.untyped_storage().nbytes()


def return_freed_memory() -> None:
    """Returns freed memory to the system, now and from now on for every block of 1 MB or more.

    glibc maps large blocks one by one, but raises its threshold for this, up to 32 MB, with each
    block that is freed; it keeps smaller blocks. This left 0.9 GB unused after a profile, a
    conversion and an evaluation of a Llama of 3 B parameters. Does nothing with other C libraries.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        for setting in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            library.mallopt(setting, MMAP_BYTES)
        library.malloc_trim(0)
