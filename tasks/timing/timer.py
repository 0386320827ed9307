"""Times of several arms, interleaved so that a slow minute of the machine hits all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Timing:
    """Samples of one arm, in milliseconds, in the order they were taken."""

    samples_ms: tuple[float, ...]

    @property
    def median_ms(self) -> float:
        return statistics.median(self.samples_ms)

    @property
    def low_ms(self) -> float:
        return min(self.samples_ms)

    @property
    def high_ms(self) -> float:
        return max(self.samples_ms)


def in_turn(names: Sequence[str], turn: int) -> list[str]:
    """The names in the order of one round: moved on by one each, so that none always follows the
    same other."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def now(device: str) -> float:
    """Seconds of a clock, read on ``cuda`` after the device has finished."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def interleaved(
    arms: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 5,
    warmup: int = 1,
    device: str = "cpu",
) -> dict[str, Timing]:
    """Run every arm once a round, for ``warmup`` unmeasured and ``repeats`` measured rounds.

    Args:
        arms: name -> call to be timed.
        device: on ``cuda`` the clock is read after the device has finished.

    Returns:
        name -> its ``repeats`` samples.
    """
    if repeats < 1:
        raise ValueError(f"at least one repeat, not {repeats}")

    samples: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(warmup + repeats):
        for name in in_turn(list(arms), turn):
            started = now(device)
            arms[name]()
            if turn >= warmup:
                samples[name].append((now(device) - started) * 1e3)
    return {name: Timing(tuple(values)) for name, values in samples.items()}
