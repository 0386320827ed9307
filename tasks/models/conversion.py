"""Conversion in memory and back: what specs and fitted tensors would do, without a second model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.offload.layer_turn import at_work, follow

LAYERS = "model.layers."


@contextmanager
def converted(
    model: HybridForCausalLM,
    specs: Mapping[int, dict[str, Any]],
    tensors: Mapping[str, Tensor] | None = None,
    donor: HybridForCausalLM | None = None,
) -> Iterator[HybridForCausalLM]:
    """The model with some layers' specs and tensors replaced, for the length of the block.

    The very same layer modules are put back afterwards, whatever happens inside.

    Args:
        model: changed in place; its weights are shared, not copied.
        specs: layer index -> the layer's whole spec.
        tensors: full name -> value, in any float dtype; of layers alone.
        donor: a model of the same base; the layers in ``specs`` are made of its layers' modules.

    Raises:
        ValueError: a spec that is not allowed; nothing stays changed.
    """
    before: dict[int, HybridLayer] = {}
    tensors = tensors or {}
    touched = {layer: model.config.layer_specs[layer] for layer in map(layer_of, tensors)}
    try:
        for layer, spec in (touched | dict(specs)).items():
            before[layer] = model.model.layers[layer]
            if donor is not None and donor is not model and layer in specs:
                model.put_layer(layer, donor.model.layers[layer])
            change_layer(model, layer, spec)
        give_tensors(model, tensors)
        yield model
    finally:
        for layer, module in before.items():
            model.put_layer(layer, module)


def change_layer(model: HybridForCausalLM, index: int, spec: dict[str, Any]) -> None:
    """`HybridForCausalLM.set_layer_spec`, of a model that may be streamed."""
    before = model.model.layers[index]
    with at_work(before):
        model.set_layer_spec(index, spec)
        follow(before, model.model.layers[index])


def shallow_copy(model: HybridForCausalLM) -> HybridForCausalLM:
    """A model of the same modules whose layers can be changed without touching the original's."""
    clone = with_own_dicts(model)
    clone.config = copy.deepcopy(model.config)
    clone.model = with_own_dicts(model.model)
    clone.model.config = clone.config
    clone.model.layers = nn.ModuleList(map(with_own_dicts, model.model.layers))
    return clone


def unfitted_copy(base: HybridForCausalLM, specs: Sequence[dict[str, Any]]) -> HybridForCausalLM:
    """The base with these layers, for what does not depend on values, such as time.

    Tensors that both have are shared; what strategies would fit is as it is made (maps are zero).

    Raises:
        ValueError: a spec that is not allowed.
    """
    model = shallow_copy(base)
    for layer, (spec, before) in enumerate(zip(specs, base.config.layer_specs, strict=True)):
        if spec != before:
            model.set_layer_spec(layer, spec)
    return model


def layer_of(name: str) -> int:
    """Index of the layer that a tensor belongs to, by its full name."""
    assert name.startswith(LAYERS), name
    return int(name.removeprefix(LAYERS).partition(".")[0])


def give_tensors(model: HybridForCausalLM, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into their places, in the dtype of what stands there.

    Modules below a layer may be shared with other models: those on the way to a tensor are
    replaced by copies that hold the same tensors, and nobody else sees the change.
    """
    for name, tensor in tensors.items():
        *path, leaf = name.removeprefix(LAYERS).split(".")
        module: nn.Module = model.model.layers[int(path[0])]
        for part in path[1:]:
            child = with_own_dicts(getattr(module, part))
            setattr(module, part, child)
            module = child
        before = getattr(module, leaf)
        assert before.shape == tensor.shape, f"{name}: {tensor.shape} for {before.shape}"
        value = tensor.to(model.device, before.dtype)
        setattr(module, leaf, nn.Parameter(value, requires_grad=before.requires_grad))


def with_own_dicts(module: nn.Module) -> nn.Module:
    """A copy of a module whose parts can be replaced without touching the original's."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    clone._parameters = dict(module._parameters)
    return clone
