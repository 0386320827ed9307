"""The one table of tolerances: relative RMS by dtype, never loosened by environment."""

import torch
from torch import Tensor

# Kernel against its fp64 reference; and the same model computed along two paths.
KERNEL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}
SAME_MODEL = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
# Our forward pass against the original family's, in fp32.
BASE_FAMILY = 1e-6


def relative_rms(actual: Tensor, expected: Tensor) -> float:
    """sqrt(mean((actual - expected)²) / mean(expected²)), in fp64; 0 where both are zero."""
    actual, expected = actual.detach().double(), expected.detach().double()
    difference = (actual - expected).square().mean().sqrt()
    scale = expected.square().mean().sqrt()
    return (difference / scale).item() if scale else difference.item()
