"""Shares the weights that two loaded models have in common outside their layers."""

from __future__ import annotations

import torch
from torch import nn

from layerwright.tasks.hybrid.modeling import HybridForCausalLM


def share_outside_layers(model: HybridForCausalLM, other: HybridForCausalLM) -> None:
    """Makes ``model`` use the embeddings, final norm and head of ``other`` where they are equal.

    A conversion does not change these weights. With a large vocabulary they are bigger than many
    layers: 788 MB of 6.4 GB in a Llama of 3 B parameters with 128,256 tokens. Both models must be
    in evaluation mode and on one device; the outputs of both stay the same.
    """
    other_weights = _outside_layers(other)
    for name, own in _outside_layers(model).items():
        other_weight = other_weights.get(name)
        if (
            other_weight is not None
            and own.dtype == other_weight.dtype
            and torch.equal(own, other_weight)
        ):
            own.data = other_weight.data
        else:  # a copy, because the weights may share one buffer that is to be freed
            own.data = own.data.clone()


def _outside_layers(model: HybridForCausalLM) -> dict[str, nn.Parameter]:
    named = model.named_parameters()
    return {name: weight for name, weight in named if not name.startswith("model.layers.")}
