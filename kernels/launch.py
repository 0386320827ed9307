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
LOG2_E = tl.constexpr(1.4426950408889634)  # the kernels use exp2 and log2
LN_2 = tl.constexpr(0.6931471805599453)
SMALLEST_DOT = 16  # smallest number of rows or columns of tl.dot
WARPS, STAGES = (4, 8), (2, 3)  # tried by the autotuner
MULTIPROCESSORS = 132  # of an H100 or H200; sets how many programs to launch


@triton.jit
def product(a, b, PRECISION: tl.constexpr):
    """The product a b, summed in fp32."""
    if PRECISION == "ieee":  # the interpreter would multiply the bits of bf16 as integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, input_precision=PRECISION)


@triton.jit
def softmax_step(b_s, b_v, b_out, b_max, b_sum, PRECISION: tl.constexpr):
    """Adds keys, by scores in base 2 and values, to an online softmax: its output, max and sum."""
    new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
    # the maximum is -inf until a key is visible, and -inf - -inf is NaN
    shift = tl.where(new_max == float("-inf"), 0.0, new_max)
    b_p = tl.exp2(b_s - shift[:, None])
    kept = tl.exp2(b_max - shift)
    b_sum = b_sum * kept + tl.sum(b_p, axis=1)
    b_out = b_out * kept[:, None] + product(b_p.to(b_v.dtype), b_v, PRECISION)
    return b_out, new_max, b_sum


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter (TRITON_INTERPRET=1), on CPU tensors."""
    return bool(triton.knobs.runtime.interpret)


def tuned(kernel: Any, key: Sequence[str]) -> Any:
    """The kernel with warps and stages tuned for each value of the arguments in `key`.

    The autotuner runs the kernel several times on the same tensors, so a kernel that updates a
    tensor in place must not use it. The interpreter has no warps and gets the kernel as it is.
    """
    if interpreting():
        return kernel
    configs = [triton.Config({}, num_warps=w, num_stages=s) for w in WARPS for s in STAGES]
    return triton.autotune(configs=configs, key=list(key))(kernel)


def precision(*dtypes: torch.dtype) -> str:
    """Precision of tl.dot for inputs of these dtypes: full fp32 if any input is fp32."""
    if interpreting():
        return INTERPRETED
    return EXACT.value if torch.float32 in dtypes else ROUNDED


def padded_size(size: int) -> int:
    """The smallest power of two >= `size` that tl.dot accepts."""
    return max(triton.next_power_of_2(size), SMALLEST_DOT)


def dense_channels(x: Tensor) -> Tensor:
    """x itself if its last dimension has stride 1, as kernels need it; else a contiguous copy."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def row_stride(x: Tensor) -> int:
    """Stride from one row of the batch to the next; 0 if all rows share one."""
    return x.stride(0) if len(x) > 1 else 0
