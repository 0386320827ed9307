"""What a forward pass leaves between its layers, seen through hooks.

Shapes: B rows, T tokens, D hidden size.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch import Tensor

from layerwright.tasks.hybrid.modeling import HybridForCausalLM


@dataclass
class Seen:
    """``stream``: the input of each layer and the output of the last, (B, T, D) each.

    ``mixed``: what the mixers of the asked layers added, by layer.
    """

    stream: list[Tensor] = field(default_factory=list)
    mixed: dict[int, Tensor] = field(default_factory=dict)


@contextmanager
def seen(
    model: HybridForCausalLM, *, stream: bool = True, mixers: Collection[int] = ()
) -> Iterator[Seen]:
    """Collect from the one forward pass inside the block. One batch's states are kept, no more."""
    found = Seen()
    hooks = []

    def after_layer(layer, inputs, output) -> None:  # type: ignore[no-untyped-def]
        if not found.stream:
            found.stream.append(inputs[0])
        found.stream.append(output)

    if stream:
        hooks += [layer.register_forward_hook(after_layer) for layer in model.model.layers]
    for index in mixers:

        def after_mixer(mixer, inputs, output, index=index) -> None:  # type: ignore[no-untyped-def]
            found.mixed[index] = output

        hooks.append(model.model.layers[index].self_attn.register_forward_hook(after_mixer))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
