"""Converts and restores models in memory, and shares weights between them, without copies."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from layerwright.tasks.hybrid.layer import HybridLayer
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.layer_turn import at_work, follow

LAYERS = "model.layers."


@contextmanager
def converted(
    model: HybridForCausalLM,
    specs: Mapping[int, dict[str, Any]],
    tensors: Mapping[str, Tensor] | None = None,
    donor: HybridForCausalLM | None = None,
) -> Iterator[HybridForCausalLM]:
    """Replaces the specs and tensors of some layers of ``model`` within the block.

    Args:
        specs: layer index -> the layer's whole spec.
        tensors: full name -> value, in any float dtype; tensors of layers only.
        donor: a model of the same base; the layers in ``specs`` are built from its layers' modules.

    Raises:
        ValueError: a spec is not valid; the model is unchanged.
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
        assign_tensors(model, tensors)
        yield model
    finally:
        for layer, module in before.items():
            model.put_layer(layer, module)


def change_layer(model: HybridForCausalLM, index: int, spec: dict[str, Any]) -> None:
    """Like `HybridForCausalLM.set_layer_spec`; also works for a streamed model."""
    before = model.model.layers[index]
    with at_work(before):
        model.set_layer_spec(index, spec)
        follow(before, model.model.layers[index])


def shallow_copy(model: HybridForCausalLM) -> HybridForCausalLM:
    """A model of the same modules; changing its layers does not change the original."""
    clone = copy_module(model)
    clone.config = copy.deepcopy(model.config)
    clone.model = copy_module(model.model)
    clone.model.config = clone.config
    clone.model.layers = nn.ModuleList(map(copy_module, model.model.layers))
    return clone


def unfitted_copy(base: HybridForCausalLM, specs: Sequence[dict[str, Any]]) -> HybridForCausalLM:
    """The base with the given layer specs and without fitting, to measure time and memory.

    Tensors that both models have are shared. Tensors that a strategy would fit keep their initial
    values (linear maps are zero).

    Raises:
        ValueError: a spec is not valid.
    """
    model = shallow_copy(base)
    for layer, (spec, before) in enumerate(zip(specs, base.config.layer_specs, strict=True)):
        if spec != before:
            model.set_layer_spec(layer, spec)
    return model


def layer_of(name: str) -> int:
    """Index of the layer that a tensor belongs to, from the tensor's full name."""
    assert name.startswith(LAYERS), name
    return int(name.removeprefix(LAYERS).partition(".")[0])


def assign_tensors(model: HybridForCausalLM, tensors: Mapping[str, Tensor]) -> None:
    """Assigns tensors to the model by full name, in the dtype of the tensors they replace.

    Modules between layer and tensor are replaced by copies, because other models may share them.
    """
    for name, tensor in tensors.items():
        *path, leaf = name.removeprefix(LAYERS).split(".")
        module: nn.Module = model.model.layers[int(path[0])]
        for part in path[1:]:
            child = copy_module(getattr(module, part))
            setattr(module, part, child)
            module = child
        before = getattr(module, leaf)
        assert before.shape == tensor.shape, f"{name}: {tensor.shape} for {before.shape}"
        value = tensor.to(model.device, before.dtype)
        setattr(module, leaf, nn.Parameter(value, requires_grad=before.requires_grad))


def copy_module(module: nn.Module) -> Any:
    """A shallow copy of a module; replacing its parts does not change the original."""
    clone = copy.copy(module)
    clone._modules = dict(module._modules)
    clone._parameters = dict(module._parameters)
    return clone


def share_outside_layers(model: HybridForCausalLM, other: HybridForCausalLM) -> None:
    """Makes ``model`` use the embeddings, final norm and head of ``other`` where they are equal.

    With a large vocabulary they are bigger than many layers: 788 MB of 6.4 GB in a Llama of 3 B
    parameters. Both models must be in evaluation mode and on one device.
    """
    shared = _outside_layers(other)
    for name, own in _outside_layers(model).items():
        theirs = shared.get(name, own)
        if theirs is not own and own.dtype == theirs.dtype and torch.equal(own, theirs):
            own.data = theirs.data
        else:  # a copy, because the weights may share one buffer that is to be freed
            own.data = own.data.clone()


def _outside_layers(model: HybridForCausalLM) -> dict[str, nn.Parameter]:
    named = model.named_parameters()
    return {name: weight for name, weight in named if not name.startswith("model.layers.")}
