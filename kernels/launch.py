"""What every Triton kernel here needs at launch: settings, exactness of products, the device.

Kernel bodies stand apart from their settings, because Triton's interpreter runs plain kernels and
none that are tuned over several configurations.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the Triton kernels need the package triton") from error

# tl.dot on fp32: tf32 keeps 11 bits; three products of split operands keep fp32's accuracy.
EXACT, ROUNDED, INTERPRETED = tl.constexpr("tf32x3"), "tf32", "ieee"
MOST_TOKENS = 2**31 - 1  # kernels compare positions in 32 bits: half the registers of 64
SMALLEST_DOT = 16  # rows or columns of a product on matrix units
WARPS, STAGES = (4, 8), (2, 3)  # what is tried
MULTIPROCESSORS = 132  # of an H100 or H200: how many programs fill one


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1), tensors on the CPU."""
    return bool(triton.knobs.runtime.interpret)


def tuned(kernel, key: Sequence[str]):
    """The kernel with warps and stages chosen by trial, once for each value of the named arguments.

    In the interpreter, where neither means anything, the kernel itself. Only for kernels that may
    run repeatedly on the same tensors: not for those that update one in place.
    """
    if interpreting():
        return kernel
    configs = [triton.Config({}, num_warps=w, num_stages=s) for w in WARPS for s in STAGES]
    return triton.autotune(configs=configs, key=list(key))(kernel)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """a b with fp32 sums. The interpreter would multiply the bits of bf16 as whole numbers."""
    if PRECISION == "ieee":
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


def precision(*dtypes: torch.dtype) -> str:
    """Precision of products of numbers that came from inputs of these dtypes."""
    if interpreting():
        return INTERPRETED
    return EXACT.value if torch.float32 in dtypes else ROUNDED


def padded_size(size: int) -> int:
    """The power of two that holds `size` channels, at least what a product takes."""
    return max(triton.next_power_of_2(size), SMALLEST_DOT)


def rows(x: Tensor) -> Tensor:
    """x itself if its last dimension is dense, else a copy: kernels take any other strides."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
