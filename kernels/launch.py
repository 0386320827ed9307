"""Launch settings, precision of products and tensor layout that all Triton kernels share.

A kernel's body is a plain function, and `tuned` adds the settings: Triton's interpreter cannot run
an autotuned kernel.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

try:
    import triton
    import triton.language as tl
except ImportError as error:
    raise ImportError("the Triton kernels need the package triton") from error

# Precision of tl.dot on fp32: tf32 rounds to 11 bits; tf32x3 sums three tf32 products of split
# operands and keeps the accuracy of fp32.
EXACT, ROUNDED, INTERPRETED = tl.constexpr("tf32x3"), "tf32", "ieee"
MAX_TOKENS = 2**31 - 1  # kernels hold positions in 32 bits, which halves the registers
SMALLEST_DOT = 16  # smallest number of rows or columns of tl.dot
WARPS, STAGES = (4, 8), (2, 3)  # tried by the autotuner
MULTIPROCESSORS = 132  # of an H100 or H200; sets how many programs to launch


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1), on CPU tensors."""
    return bool(triton.knobs.runtime.interpret)


def tuned(kernel: Any, key: Sequence[str]) -> Any:
    """Returns the kernel with autotuned warps and stages.

    The autotuner runs once for each value of the arguments named in `key`. It runs the kernel
    several times on the same tensors, so a kernel that updates a tensor in place must not use it.
    In the interpreter, which has no warps, the kernel is returned as it is.
    """
    if interpreting():
        return kernel
    configs = [triton.Config({}, num_warps=w, num_stages=s) for w in WARPS for s in STAGES]
    return triton.autotune(configs=configs, key=list(key))(kernel)


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """The product a b, summed in fp32.

    For the interpreter bf16 is converted first: it would multiply the bits as integers.
    """
    if PRECISION == "ieee":
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


def precision(*dtypes: torch.dtype) -> str:
    """Precision of tl.dot for inputs of these dtypes: full fp32 if any input is fp32."""
    if interpreting():
        return INTERPRETED
    return EXACT.value if torch.float32 in dtypes else ROUNDED


def padded_size(size: int) -> int:
    """The smallest power of two >= `size` that tl.dot accepts."""
    return max(triton.next_power_of_2(size), SMALLEST_DOT)


def dense_channels(x: Tensor) -> Tensor:
    """x itself if its last dimension has stride 1, else a contiguous copy.

    Kernels accept any strides in the other dimensions.
    """
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()
