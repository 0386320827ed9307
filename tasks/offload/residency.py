"""Which layers stay in the device's memory and which pass through it, under a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layerwright.tasks.errors import InputError

RING = 2  # slots: one layer works while the next arrives


@dataclass(frozen=True)
class Residency:
    """What is held while a model runs.

    Attributes:
        streamed: layers that pass through the slots, ascending; all others stay.
        slots: number of buffers that streamed layers share.
        slot_bytes: size of each: that of the largest streamed layer.
        nbytes: the part outside the layers, the layers that stay, and the slots.
    """

    streamed: tuple[int, ...]
    slots: int
    slot_bytes: int
    nbytes: int


def plan_residency(
    fixed_bytes: int,
    layer_bytes: Sequence[int],
    resident_bytes: int | None = None,
    resident_layers: int | None = None,
) -> Residency:
    """The choice within the bound that leaves the fewest bytes to be loaded for each token.

    Every token walks the layers 0 .. L-1 in the same order, so a cache that drops the least
    recently used layer never has the next one: its hit rate is zero as soon as one layer is
    missing. So the set that stays is fixed. It is spread evenly between the streamed layers, so
    that a layer on its way has all the layers in between to arrive in; with the streamed layers in
    one piece, time to load could hide only behind their own. Small layers, such as maps, are the
    first to stay: in a slot each would take the room of a large one.

    Args:
        fixed_bytes: embeddings, final norm and head.
        layer_bytes: size of each layer; 0 for one that has no weights.
        resident_bytes: bound on everything held.
        resident_layers: bound on layers held, those in the slots included; layers without weights
            do not count. With neither bound all stay.

    Raises:
        InputError: both bounds, or one in which no layer fits; it names the least that would do.
    """
    if resident_bytes is not None and resident_layers is not None:
        raise InputError("a bound in bytes and one in layers", expected="at most one of them")
    if resident_layers is not None and resident_layers < 1:
        raise InputError(
            f"no model runs with {resident_layers} layers resident", expected="1 or more"
        )
    weighty = sum(size > 0 for size in layer_bytes)

    def loaded(choice: Residency) -> int:
        return sum(layer_bytes[layer] for layer in choice.streamed)

    def fits(choice: Residency) -> bool:
        layers = weighty - len(choice.streamed) + choice.slots
        return (resident_bytes is None or choice.nbytes <= resident_bytes) and (
            resident_layers is None or layers <= resident_layers
        )

    choices = _choices(fixed_bytes, layer_bytes)
    fitting = [choice for choice in choices if fits(choice)]
    if fitting:
        return min(fitting, key=lambda choice: (loaded(choice), -choice.slots))
    least = min(choice.nbytes for choice in choices)
    raise InputError(
        f"{resident_bytes} bytes do not hold one layer and what lies outside the layers",
        where="memory",
        expected=f"at least {least} bytes ({megabytes(least)})",
        remedy="give more memory, or convert the checkpoint to a smaller dtype",
    )


def _choices(fixed_bytes: int, layer_bytes: Sequence[int]) -> list[Residency]:
    """Everything resident, and all that holds less than that."""
    whole = Residency((), 0, 0, fixed_bytes + sum(layer_bytes))
    found = [whole]

    def add(streamed: Sequence[int], slots: int) -> None:
        sizes = [layer_bytes[layer] for layer in streamed]
        nbytes = whole.nbytes - sum(sizes) + slots * max(sizes)
        if nbytes < whole.nbytes:
            found.append(Residency(tuple(streamed), slots, max(sizes), nbytes))

    for least in sorted(set(layer_bytes) - {0}):
        pool = [layer for layer, size in enumerate(layer_bytes) if size >= least]
        for count in range(RING + 1, len(pool) + 1):
            add([pool[i * len(pool) // count] for i in range(count)], RING)
        add(pool, 1)
    return found


def megabytes(size_bytes: int) -> str:
    """A size that holds these bytes, such as ``131.4MB``: rounded up to a tenth."""
    return f"{-(-size_bytes // 10**5) / 10}MB"
