"""Record the residual stream and the mixers' outputs of a forward pass, through hooks.

Shapes: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from layerwright.tasks.hybrid.modeling import HybridForCausalLM


@dataclass
class Recording:
    """The recorded tensors of a forward pass.

    Attributes:
        stream: the input of each layer and the output of the last, (B, T, D) each.
        mixed: layer -> output of its mixer, (B, T, D).
    """

    stream: list[Tensor] = field(default_factory=list)
    mixed: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def recording(
    model: HybridForCausalLM, *, stream: bool = True, mixers: Collection[int] = ()
) -> Iterator[Recording]:
    """Record the forward pass inside the ``with`` block, which must be a single pass.

    Args:
        stream: whether to record the residual stream.
        mixers: layers whose mixer's output is recorded.
    """
    recorded = Recording()
    hooks = []

    def after_layer(_layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not recorded.stream:
            recorded.stream.append(inputs[0])
        recorded.stream.append(output)

    if stream:
        hooks += [layer.register_forward_hook(after_layer) for layer in model.model.layers]
    for index in mixers:

        def after_mixer(
            _mixer: nn.Module, _inputs: Any, output: Tensor, index: int = index
        ) -> None:
            recorded.mixed[index] = output

        hooks.append(model.model.layers[index].self_attn.register_forward_hook(after_mixer))
    try:
        yield recorded
    finally:
        for hook in hooks:
            hook.remove()
