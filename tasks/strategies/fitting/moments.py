"""Second moments of a block's input and of its addition to the residual stream, as running sums.

Shapes: N tokens, D hidden size. x is the block's input minus a fixed shift, e = y - x the block's
addition.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from layerwright.tasks.errors import StepError

_MIN_RIDGE = 1e-7  # about the rounding error of fp32 products


@dataclass
class Moments:
    """Sums over tokens in fp64; each batch's products are computed in fp32.

    Attributes:
        shift: (D,) fp32, subtracted from x. A shift near the mean of x keeps the products as small
            as the variances, so that centring loses few digits.
        n: number of tokens.
        x, e: (D,) sums.
        xx, xe: (D, D) sums of x xᵀ and x eᵀ.
        ee, yy: (D,) sums of e² and (x + e)² per channel.
    """

    shift: Tensor
    n: Tensor
    x: Tensor
    e: Tensor
    xx: Tensor
    xe: Tensor
    ee: Tensor
    yy: Tensor

    @classmethod
    def empty(cls, width: int, shift: Tensor) -> Moments:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.float64, device=shift.device)

        vectors = {name: zeros(width) for name in ("x", "e", "ee", "yy")}
        products = {name: zeros(width, width) for name in ("xx", "xe")}
        return cls(shift=shift, n=zeros(), **vectors, **products)

    def add(self, x_ND: Tensor, e_ND: Tensor, weight_N1: Tensor) -> None:
        """Adds tokens; tokens with weight 0 are left out. ``x_ND`` is without the shift, fp32."""
        x = (x_ND - self.shift).mul_(weight_N1)
        e = e_ND * weight_N1
        self.n += weight_N1.sum(dtype=torch.float64)
        self.x += x.sum(0)
        self.e += e.sum(0)
        self.xx += x.T @ x
        self.xe += x.T @ e
        self.ee += e.square().sum(0)
        self.yy += (x + e).square_().sum(0)

    def __add__(self, other: Moments) -> Moments:
        """The sums over both sets of tokens; their shifts must be equal."""
        sums = {
            field.name: getattr(self, field.name) + getattr(other, field.name)
            for field in fields(self)
            if field.name != "shift"
        }
        return Moments(shift=self.shift, **sums)

    def means(self) -> tuple[Tensor, Tensor]:
        """Means of x (minus the shift) and of e."""
        return self.x / self.n, self.e / self.n

    def about(self, mean_x: Tensor, mean_e: Tensor) -> Centred:
        """The products of these tokens about any two means."""
        mean_y, y = mean_x + mean_e, self.x + self.e
        cross_xx = torch.outer(mean_x, self.x)
        cross_xe = torch.outer(mean_x, self.e) + torch.outer(self.x, mean_e)
        return Centred(
            xx=self.xx - cross_xx - cross_xx.T + self.n * torch.outer(mean_x, mean_x),
            xe=self.xe - cross_xe + self.n * torch.outer(mean_x, mean_e),
            ee=(self.ee - 2 * mean_e * self.e + self.n * mean_e**2).sum(),
            yy=(self.yy - 2 * mean_y * y + self.n * mean_y**2).sum(),
        )

    def centred(self) -> Centred:
        """The products about the tokens' own means."""
        return self.about(*self.means())


@dataclass(frozen=True)
class Centred:
    """Products of N tokens about given means: XᵀX and XᵀE (D, D), ||E||² and ||Y||²; fp64."""

    xx: Tensor
    xe: Tensor
    ee: Tensor
    yy: Tensor

    def ridge_map(self, ridge: float) -> Tensor:
        """A (D, D) = (XᵀX + ridge diag(XᵀX))⁻¹ XᵀE; the penalty scales with each variance."""
        scale, factor = self._factor(ridge)
        return torch.cholesky_solve(self.xe * scale[:, None], factor) * scale[:, None]

    def error(self, map_DD: Tensor) -> Tensor:
        """||X A - E||² of a map A on these tokens."""
        return self.ee + (map_DD * (self.xx @ map_DD - 2 * self.xe)).sum()

    def least_error(self) -> Tensor:
        """min over A of ||X A - E||² = ||E||² - ||L⁻¹ XᵀE||², where L Lᵀ = XᵀX."""
        scale, factor = self._factor(_MIN_RIDGE)
        half = torch.linalg.solve_triangular(factor, self.xe * scale[:, None], upper=False)
        return (self.ee - half.square().sum()).clamp_min(0)

    def _factor(self, ridge: float) -> tuple[Tensor, Tensor]:
        """1 / standard deviation per channel (D,), and the Cholesky factor of the scaled XᵀX.

        ``ridge`` is added to its diagonal of ones. The fit does not depend on the scale, but its
        rounding errors do. If X lacks directions, their eigenvalues are rounding errors of either
        sign; the ridge is then increased until it dominates them.

        Raises:
            StepError: the sums are not finite.
        """
        deviation = self.xx.diagonal().clamp_min(0).sqrt()
        scale = torch.where(deviation > 0, 1 / deviation, 0.0)
        correlations = (self.xx * scale).mul_(scale[:, None])
        for _ in range(7):
            ridged = correlations.clone()
            ridged.diagonal().add_(ridge)
            factor, failed = torch.linalg.cholesky_ex(ridged)
            # in exact arithmetic every pivot is at least the smallest eigenvalue, and so the ridge
            if not failed and factor.diagonal().square().min() >= ridge / 2:
                return scale, factor
            ridge *= 10
        raise StepError(
            "the hidden states are not finite (NaN or infinity): no linear map can be fitted"
        )
