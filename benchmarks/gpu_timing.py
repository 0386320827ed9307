"""Compare the arms of an operator with its definition, then time them in turns by CUDA events."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

Inputs = Sequence[Tensor]
Arm = Callable[..., Tensor | Sequence[Tensor]]
REPEATS, WARM_UP = 21, 3
HEADER = (
    "| operator | shape | arm | median, µs | range | TFLOP/s | GB/s | of the floor | rel. RMS |\n"
    "|---|---|---|--:|---|--:|--:|--:|--:|"
)


@dataclass(frozen=True)
class Ceilings:
    """What this card does at best, by measurement: bytes/s of a copy, bf16 FLOP/s of a product."""

    bandwidth: float
    matrix_rate: float


@dataclass(frozen=True)
class Case:
    """One operator at one shape.

    Attributes:
        flops, fewest_bytes: as in kernels/README.md.
        draw: makes a set of inputs from a seed; several sets are used in turn.
        arms: by name; each takes the inputs. One may raise ImportError or run out of memory.
        expected: what the outputs are held to, from the same inputs.
        limit: relative RMS up to which an arm is timed at all.
    """

    operator: str
    shape: str
    flops: float
    fewest_bytes: float
    draw: Callable[[int], Inputs]
    arms: dict[str, Arm]
    expected: Arm
    limit: float = 2e-2


def tensors(found: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [found] if isinstance(found, Tensor) else list(found)


def error(found: Tensor | Sequence[Tensor], expected: Tensor | Sequence[Tensor]) -> float:
    """Largest relative RMS of the outputs."""
    worst = 0.0
    for x, y in zip(tensors(found), tensors(expected), strict=True):
        x, y = x.detach().float(), y.detach().float()
        worst = max(worst, ((x - y).square().mean() / y.square().mean()).sqrt().item())
    return worst


def checked(case: Case, inputs: Inputs) -> dict[str, float | str]:
    """By arm its error, or why it has none."""
    expected = [x.detach() for x in tensors(case.expected(*inputs))]
    results: dict[str, float | str] = {}
    for name, arm in case.arms.items():
        try:
            results[name] = error(arm(*inputs), expected)
        except ImportError as missing:
            results[name] = f"not installed ({missing})"
        except torch.OutOfMemoryError:
            results[name] = "out of memory"
    return results


def seconds(function: Callable[[], object]) -> float:
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    function()
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop) / 1e3


def timed(arms: dict[str, Arm], sets: Sequence[Inputs]) -> dict[str, list[float]]:
    """Seconds of each arm, the arms in turns, each turn on the next set of inputs."""
    for _ in range(WARM_UP):
        for arm in arms.values():
            arm(*sets[0])
    taken: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(REPEATS):
        for name, arm in arms.items():
            taken[name].append(seconds(partial(arm, *sets[turn % len(sets)])))
    return taken


def lines(case: Case, limits: Ceilings) -> Iterator[str]:
    """The case's lines of the table, one for each arm."""
    sets = [case.draw(seed) for seed in range(3)]
    errors = checked(case, sets[0])
    near = {n for n, e in errors.items() if not isinstance(e, str) and e <= case.limit}
    sound = {n: arm for n, arm in case.arms.items() if n in near}
    taken = timed(sound, sets)
    floor = max(case.flops / limits.matrix_rate, case.fewest_bytes / limits.bandwidth)
    yield f"| {case.operator} | {case.shape} | floor | {floor * 1e6:,.1f} | | | | | |"
    for name, found in errors.items():
        start = f"| {case.operator} | {case.shape} | {name} |"
        if isinstance(found, str):
            yield f"{start} {found} | | | | | |"
        elif name not in sound:
            yield f"{start} wrong, so not timed | | | | | {found:.1e} |"
        else:
            s = taken[name]
            middle = statistics.median(s)
            yield (
                f"{start} {middle * 1e6:,.1f} | {min(s) * 1e6:,.1f}-{max(s) * 1e6:,.1f} | "
                f"{case.flops / middle / 1e12:,.1f} | {case.fewest_bytes / middle / 1e9:,.0f} | "
                f"{floor / middle:.0%} | {found:.1e} |"
            )


@cache
def ceilings() -> Ceilings:
    """Copy of 2 GiB, and a product of 8192 x 8192 matrices in bf16."""
    source = torch.empty(2**30, dtype=torch.bfloat16, device="cuda")
    target = torch.empty_like(source)
    a, b = torch.randn(2, 8192, 8192, device="cuda").bfloat16()
    arms = {"copy": lambda: target.copy_(source), "product": lambda: a @ b}
    taken = {name: statistics.median(s) for name, s in timed(arms, [()]).items()}
    return Ceilings(2 * source.nbytes / taken["copy"], 2 * 8192**3 / taken["product"])
