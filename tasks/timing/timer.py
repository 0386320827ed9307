"""Times arms in interleaved rounds, so that a slow minute of the machine affects all arms."""

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


def rotated(names: Sequence[str], turn: int) -> list[str]:
    """The names in the order of round ``turn``, rotated by one place each round.

    This way no arm always runs after the same other arm.
    """
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def now(device: str) -> float:
    """Clock time in seconds; on ``cuda`` it first waits for the device to finish."""
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
    """Runs every arm once per round, in ``warmup`` unmeasured and ``repeats`` measured rounds.

    Args:
        arms: name -> function to time.
        device: on ``cuda`` the clock is read after the device has finished.

    Returns:
        name -> its ``repeats`` samples.

    Raises:
        ValueError: ``repeats`` is less than 1.
    """
    if repeats < 1:
        raise ValueError(f"repeats must be at least 1, got {repeats}")

    samples: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(warmup + repeats):
        for name in rotated(list(arms), turn):
            started = now(device)
            arms[name]()
            if turn >= warmup:
                samples[name].append((now(device) - started) * 1e3)
    return {name: Timing(tuple(values)) for name, values in samples.items()}
