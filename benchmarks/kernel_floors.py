"""Compute the work, the minimal bytes and the minimal time of each operator.

    python -m benchmarks.kernel_floors

Runs nothing on a device. The floor is the longer of two times: the operator's floating-point
operations at an H200's published matrix rate, and the fewest bytes that must cross its memory bus
at the published bandwidth. "Torch" is what the torch path of this tree moves today: the bytes of
every operation's inputs and outputs and the number of operations, counted while the path runs on
the meta device.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layerwright.kernels.covered_mass import covered_mass
from layerwright.kernels.gated_recurrence.chunked import gated_recurrence_chunked
from layerwright.kernels.streaming_attention.blockwise import streaming_attention_blockwise

BANDWIDTH = 4.8e12  # bytes/s, NVIDIA's data sheet of the H200, not measured
MATRIX_RATE = 989e12  # bf16 FLOP/s without sparsity, the same
SINKS, WINDOW, LIGER_WINDOW, CHUNK, QUERIES = 4, 1020, 64, 64, 32
SPANS = (32, 64, 128, 256, 512)
HALF, SINGLE = 2, 4  # bytes


@dataclass(frozen=True)
class Heads:
    """A model's attention shape: query heads, key/value heads, head size, hidden size."""

    name: str
    H: int
    G: int
    d: int
    D: int


MODELS = (Heads("8 B", 32, 8, 128, 4096), Heads("SmolLM2-135M", 9, 3, 64, 576))


@dataclass(frozen=True)
class Row:
    """One line of the table; `today` runs the torch path on meta tensors, None where it is ours."""

    operator: str
    shape: str
    flops: float
    fewest_bytes: float
    today: Callable[[], object] | None = None

    @property
    def floor_s(self) -> float:
        return max(self.flops / MATRIX_RATE, self.fewest_bytes / BANDWIDTH)


class ByteCount(TorchDispatchMode):
    """Bytes of the inputs and outputs of every operation that moves data, and how many these are.

    A view moves nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.operations = 0

    def add(self, *involved: object) -> None:
        tensors = [x for x in tree_leaves(involved) if isinstance(x, Tensor)]
        if any(x.device.type == "meta" for x in tensors):
            self.operations += 1
            self.bytes += sum(x.numel() * x.element_size() for x in tensors)

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        if not function.is_view:
            self.add(args, kwargs, found)
        return found


class FusedAttention(TorchFunctionMode):
    """Counts scaled_dot_product_attention as one operation: on a GPU it is, on meta it is not."""

    def __init__(self, count: ByteCount) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        out = torch.empty_like(args[0])
        self.count.add(args, kwargs, out)
        return out


def visible_pairs(tokens: int, sinks: int, window: int) -> int:
    """Query-key pairs of a causal prompt: sum over i of min(i + 1, window) + the sinks before."""
    full = min(tokens, window)
    pairs = full * (full + 1) // 2 + (tokens - full) * window
    beyond = max(tokens - window, 0)  # queries with i - window + 1 > 0 positions out of sight
    short = min(beyond, sinks)
    return pairs + short * (short + 1) // 2 + (beyond - short) * sinks


def meta(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(*shape, device="meta", dtype=dtype)


def prefill_rows(m: Heads, tokens: int) -> list[Row]:
    """Attention over a prompt: full, streaming, and streaming's backward pass."""
    q_bytes, kv_bytes = HALF * m.H * tokens * m.d, HALF * m.G * tokens * m.d
    pairs = visible_pairs(tokens, SINKS, WINDOW)
    shape = f"T={tokens}"

    def today() -> object:
        q, k = meta(1, m.H, tokens, m.d), meta(1, m.G, tokens, m.d)
        at = torch.arange(tokens)[None]
        return streaming_attention_blockwise(q, k, k, at, at, SINKS, WINDOW)

    causal = tokens * (tokens + 1) // 2
    both = 2 * q_bytes + 2 * kv_bytes
    work, name = m.H * m.d, "streaming_attention"
    return [
        Row("full attention", shape, 4 * work * causal, both),
        Row(name, shape, 4 * work * pairs, both, today),
        Row(f"{name} backward", shape, 10 * work * pairs, 4 * (q_bytes + kv_bytes)),
    ]


def recurrence_rows(m: Heads, tokens: int) -> list[Row]:
    """Per-channel decay over a prompt, d x d states, and its backward pass.

    Work: for each token the write into a state (G heads) and the read (H heads), and within chunks
    of 64 the scores and their product with the values.
    """
    write, read = 2 * m.G * m.d * m.d, 2 * m.H * m.d * m.d
    within = 2 * m.H * CHUNK * m.d  # two products over half of a chunk on average
    flops = tokens * (write + read + within)
    single = SINGLE * tokens * m.d
    q, k, v, g = (meta(1, h, tokens, m.d, dtype=torch.float32) for h in (m.H, m.G, m.G, m.G))
    state = meta(1, m.G, m.d, m.d, dtype=torch.float32)

    def today() -> object:
        return gated_recurrence_chunked(q, k, v, g, state, "key")

    return [
        Row("gated_recurrence", f"T={tokens}", flops, single * (2 * m.H + 3 * m.G), today),
        Row("gated_recurrence backward", f"T={tokens}", 3 * flops, single * (3 * m.H + 6 * m.G)),
    ]


def decode_rows(m: Heads, batch: int) -> list[Row]:
    """One new token per row: full attention at 16K, streaming, and Liger's layer."""
    slots = SINKS + WINDOW
    state = 2 * SINGLE * batch * m.G * m.d * m.d  # read and written
    kv = 2 * HALF * batch * m.G * m.d  # of one slot
    outer = HALF * batch * m.d * (2 * m.H + 2 * m.G)

    def streaming() -> Tensor:
        """What the cache and the mixer do: append, attend, keep the ends."""
        keys, new = meta(batch, m.G, slots - 1, m.d), meta(batch, m.G, 1, m.d)
        for _ in range(2):
            whole = torch.cat([keys, new], dim=2)
            torch.cat([whole[:, :, :SINKS], whole[:, :, -(WINDOW - 1) :]], dim=2)
        q = meta(batch, m.G, m.H // m.G, m.d)
        return F.scaled_dot_product_attention(q, whole, whole)

    def recurrence() -> tuple[Tensor, ...]:
        q = meta(batch, m.H, 1, m.d, dtype=torch.float32)
        k = meta(batch, m.G, 1, m.d, dtype=torch.float32)
        held = meta(batch, m.G, m.d, m.d, dtype=torch.float32)
        return gated_recurrence_chunked(q, k, k, k, held, "key")

    shape, work, step = f"B={batch}", 4 * batch * m.H * m.d, batch * m.d**2 * (3 * m.G + 2 * m.H)
    fewest = state + outer * 2
    liger = step + work * LIGER_WINDOW, fewest + kv * LIGER_WINDOW
    return [
        Row("full decode, 16K", shape, work * 16384, kv * 16384 + outer),
        Row("streaming decode", shape, work * slots, kv * slots + outer, streaming),
        Row("recurrent decode", shape, step, fewest, recurrence),
        Row("Liger decode, window 64", shape, *liger),
    ]


def mass_row(m: Heads, tokens: int) -> Row:
    """Covered mass of 5 spans for the last 32 queries: one pass over the keys."""
    q, k = meta(1, m.H, QUERIES, m.d), meta(1, m.G, tokens, m.d)
    flops, fewest = 2 * m.H * QUERIES * tokens * m.d, HALF * m.G * tokens * m.d
    today = partial(covered_mass, q, k, SPANS, SINKS)
    return Row("covered_mass, 5 spans", f"T={tokens}", flops, fewest, today)


def gram_row(m: Heads, tokens: int) -> Row:
    """XᵀX of a layer's input, bf16 products in fp32, added to an fp64 sum: cuBLAS and one add."""

    def today() -> Tensor:
        x, total = meta(tokens, m.D), meta(m.D, m.D, dtype=torch.float64)
        return total.add_(x.T @ x)

    fewest = HALF * tokens * m.D + 2 * 8 * m.D**2
    return Row("linear_gram", f"T={tokens}", 2 * tokens * m.D**2, fewest, today)


def rows(m: Heads) -> list[Row]:
    found = []
    for tokens in (1024, 8192, 32768, 131072):
        found += [*prefill_rows(m, tokens), *recurrence_rows(m, tokens), mass_row(m, tokens)]
    for batch in (1, 8, 64):
        found += decode_rows(m, batch)
    return [*sorted(found, key=lambda row: row.operator), gram_row(m, 8192)]


def line(row: Row) -> str:
    bound = "matrix" if row.flops / MATRIX_RATE > row.fewest_bytes / BANDWIDTH else "memory"
    today = "| | |"
    if row.today is not None:
        with ByteCount() as count, FusedAttention(count):
            row.today()
        times = count.bytes / row.fewest_bytes
        today = f"| {count.bytes / 1e6:,.1f} ({times:.1f}x) | {count.operations} |"
    return (
        f"| {row.operator} | {row.shape} | {row.flops / 1e9:,.2f} | {row.fewest_bytes / 1e6:,.2f} "
        f"| {row.floor_s * 1e6:,.1f} | {bound} {today}"
    )


def main() -> None:
    for m in MODELS:
        print(f"\n{m.name}: {m.H} query heads, {m.G} key/value heads, d = {m.d}, one layer\n")
        print("| operator | shape | GFLOP | fewest MB | floor, µs | bound by | torch MB | ops |")
        print("|---|---|--:|--:|--:|---|--:|--:|")
        for row in rows(m):
            print(line(row))


if __name__ == "__main__":
    main()
