"""Decides which layers stay in the device's memory and which are offloaded, under a bound."""

from collections.abc import Sequence
from dataclasses import dataclass

from layerwright.tasks.errors import InputError


@dataclass(frozen=True)
class Residency:
    """The layers that stay in memory while a model runs, and the offloaded layers.

    Attributes:
        streamed: the offloaded layers, ascending; all other layers stay in memory.
        slot_bytes: size of the buffer that the offloaded layers share, that of the largest of them.
        nbytes: bytes of the weights outside the layers, of the layers that stay, and of the buffer.
    """

    streamed: tuple[int, ...]
    slot_bytes: int
    nbytes: int


def plan_residency(
    fixed_bytes: int,
    layer_bytes: Sequence[int],
    resident_bytes: int | None = None,
    resident_layers: int | None = None,
) -> Residency:
    """The choice within the bound that loads the fewest bytes per token.

    The set that stays is fixed: every token runs the layers in the same order, so that a
    least-recently-used cache would never contain the next layer. Small layers, such as linear maps,
    stay first, because each would occupy the buffer of a large layer.

    Args:
        layer_bytes: bytes of each layer; 0 for a layer without weights.
        resident_bytes: bound on all weights in memory.
        resident_layers: bound on the number of layers in memory, the buffer included; layers
            without weights do not count. Without a bound all layers stay.

    Raises:
        InputError: both bounds are given, or no layer fits; the message names the smallest bound.
    """
    if resident_bytes is not None and resident_layers is not None:
        raise InputError(
            "got a bound in bytes and a bound in layers", expected="at most one of them"
        )
    if resident_layers is not None and resident_layers < 1:
        raise InputError(
            f"a model cannot run with {resident_layers} resident layers", expected="1 or more"
        )
    layers_with_weights = sum(size > 0 for size in layer_bytes)

    def fits(choice: Residency) -> bool:
        layers = layers_with_weights - len(choice.streamed) + bool(choice.streamed)
        return (resident_bytes is None or choice.nbytes <= resident_bytes) and (
            resident_layers is None or layers <= resident_layers
        )

    choices = _choices(fixed_bytes, layer_bytes)
    fitting = [choice for choice in choices if fits(choice)]
    if fitting:
        return min(fitting, key=lambda choice: sum(layer_bytes[i] for i in choice.streamed))
    least = min(choice.nbytes for choice in choices)
    raise InputError(
        f"{resident_bytes} bytes are too few for one layer and the weights outside the layers",
        where="memory",
        expected=f"at least {least} bytes ({megabytes(least)})",
        remedy="give more memory, or convert the checkpoint to a smaller dtype",
    )


def _choices(fixed_bytes: int, layer_bytes: Sequence[int]) -> list[Residency]:
    """Everything resident, and every choice that needs less memory than that."""
    whole = fixed_bytes + sum(layer_bytes)
    choices = [Residency((), 0, whole)]
    for least in sorted(set(layer_bytes) - {0}):
        pool = [layer for layer, size in enumerate(layer_bytes) if size >= least]
        for count in range(2, len(pool) + 1):
            sizes = [layer_bytes[layer] for layer in pool[:count]]
            nbytes = whole - sum(sizes) + max(sizes)
            choices.append(Residency(tuple(pool[:count]), max(sizes), nbytes))
    return choices


def megabytes(size_bytes: int) -> str:
    """These bytes as a size such as ``131.4MB``, rounded up to a tenth."""
    return f"{-(-size_bytes // 10**5) / 10}MB"
