"""Inference beyond the device: a model of which some layers have weights only while they work.

The output is that of the resident model, bit for bit: the same weights meet the same kernels.
Accelerate runs layers from disk too, but loads each one, tensor by tensor, when its turn has come.
Here the layer that comes next is read meanwhile, memory has a bound, and a layer can keep its
weights for as long as many rows pass through it (`at_work`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.skeleton import FlatWeights, read_skeleton
from layerwright.tasks.offload.heap import return_freed_memory
from layerwright.tasks.offload.layer_ring import LayerRing
from layerwright.tasks.offload.layer_turn import LayerTurn
from layerwright.tasks.offload.residency import Residency, plan_residency
from layerwright.tasks.passes.states import Keep, Spill

Source = Literal["disk", "host"]


@dataclass(frozen=True)
class StreamedModel:
    """What `load_streamed` returns; a context manager that ends the reading thread.

    Attributes:
        model: HybridForCausalLM in evaluation mode, to be called or to generate with as any other,
            one forward pass at a time.
        residency: which layers stay and which are streamed.
        ring: through which they are; None where all stay.
        peak_resident_bytes: most bytes of weights that the device holds at any time. Where the
            source is the host, its copies are not in it; on a CPU they lie in the same memory.
    """

    model: HybridForCausalLM
    residency: Residency
    ring: LayerRing | None
    peak_resident_bytes: int

    def __enter__(self) -> StreamedModel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def keep_states(self, folder: Path) -> Keep:
        """Where hidden states of many rows wait: in files where the weights too are too many."""
        return tuple if self.ring is None else Spill(folder)

    def close(self) -> None:
        """Ends the thread; the model cannot be run again if it has streamed layers."""
        if self.ring is not None:
            self.ring.close()


def load_streamed(
    folder: Path,
    device: str = "cpu",
    *,
    resident_bytes: int | None = None,
    resident_layers: int | None = None,
    source: Source = "disk",
    prefetch: bool = True,
) -> StreamedModel:
    """Loads a converted checkpoint or a base so that its weights stay within a bound.

    Embeddings, final norm and head stay; of the layers as many as the bound allows, see
    `plan_residency`; the others pass through a ring of two slots, or of one where two do not fit.
    Activations and the cache of keys and values are not part of the bound.

    Args:
        folder: a checkpoint; its own code is not run.
        device: where the model computes.
        resident_bytes, resident_layers: the bound; at most one. Without it everything stays.
        source: where streamed layers come from: "disk", the checkpoint's own files, or "host",
            memory of the host (pinned where the device is CUDA).
        prefetch: False loads each streamed layer when its turn has come, for comparison.

    Raises:
        InputError: not a supported checkpoint, or a bound in which no layer fits; nothing was read.
        IntegrityError: the files do not hold the weights that the config asks for.
    """
    skeleton = read_skeleton(folder)
    residency = plan_residency(
        skeleton.fixed.nbytes,
        [layer.nbytes for layer in skeleton.layers],
        resident_bytes,
        resident_layers,
    )
    model, place = skeleton.model, torch.device(device)
    held_bytes = _put(skeleton.fixed, place)
    if model.config.tie_word_embeddings:
        model.lm_head.weight = model.model.embed_tokens.weight
    for layer, weights in enumerate(skeleton.layers):
        if layer not in residency.streamed:
            held_bytes += _put(weights, place)
    for module in model.modules():  # tables that follow from the config, such as the rotation's
        for name, buffer in module.named_buffers(recurse=False):
            if not buffer.is_meta:
                module._buffers[name] = buffer.to(place)
    if not residency.streamed:
        return StreamedModel(model, residency, None, held_bytes)
    return_freed_memory()
    ring = LayerRing(
        {layer: skeleton.layers[layer] for layer in residency.streamed},
        residency.slots,
        residency.slot_bytes,
        place,
        on_host=source == "host",
        prefetch=prefetch,
    )
    for layer in residency.streamed:
        LayerTurn(ring, layer).attach(model.model.layers[layer])
    return StreamedModel(model, residency, ring, held_bytes + ring.nbytes())


def _put(weights: FlatWeights, device: torch.device) -> int:
    """Reads weights and puts them in place for good; returns the bytes that they take."""
    flat = weights.read().to(device)
    weights.put(flat)
    return flat.untyped_storage().nbytes()
