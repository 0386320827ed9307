"""One copy of what two loaded models have in common outside their layers."""

from __future__ import annotations

import torch
from torch import nn

from layerwright.tasks.hybrid.modeling import HybridForCausalLM


def share_outside_layers(model: HybridForCausalLM, other: HybridForCausalLM) -> None:
    """Makes ``model`` use the embeddings, final norm and head of ``other`` where they are equal.

    A conversion leaves them as they are, and where the vocabulary is large they are more than many
    layers: 788 MB of 6.4 GB in a Llama of 3 B parameters with 128,256 tokens. Both must be in
    evaluation mode and on one device; what either computes stays the same.
    """
    theirs = _outside_layers(other)
    for name, own in _outside_layers(model).items():
        found = theirs.get(name)
        same = found is not None and own.dtype == found.dtype and torch.equal(own, found)
        # a copy where they differ: all of them may lie in one buffer, which is to go
        own.data = found.data if same else own.data.clone()


def _outside_layers(model: HybridForCausalLM) -> dict[str, nn.Parameter]:
    named = model.named_parameters()
    return {name: weight for name, weight in named if not name.startswith("model.layers.")}
