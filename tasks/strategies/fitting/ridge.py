"""Ridge regression from running sums, with the ridge chosen on held-out rows.

Shapes: N tokens, D inputs, E = D outputs. x is an input minus a fixed shift, e an output: for a
block, y - x, its addition to the residual stream.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.strategies.fitting.stretch import Sample

# shares of each channel's variance; below the smallest, rounding errors dominate
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
HELD_OUT_EVERY = 4
TIE = 0.01  # errors within this share of the least count as equal; the smallest ridge wins
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
        sums = [getattr(self, f.name) + getattr(other, f.name) for f in fields(self)[1:]]
        return Moments(self.shift, *sums)

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

        ``ridge`` is added to its diagonal of ones. The scale changes the fit's rounding errors
        alone. If X lacks directions, their eigenvalues are rounding errors of either sign; the
        ridge is then increased until it dominates them. StepError if the sums are not finite.
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


def fit_ridge(
    samples: Iterable[Sample], width: int, rows: int, *, intercept: bool
) -> tuple[Tensor, Tensor, float]:
    """A and b that minimise ||X A + b - E||² + ridge ||A||², with channels scaled to variance one.

    The ridge from RIDGES has the least error on every fourth row, fitted on the other rows. Of
    ridges within a hundredth of the least error, the smallest is taken, because it biases least.
    The final fit uses all rows.

    All tokens are fitted. The first token of a row has massive activations; a map that has not seen
    it gives a wrong output, and every later token attends to it. The error is measured on ordinary
    tokens, because massive activations would dominate it. Sums are in fp64, each row's products in
    fp32.

    ``rows`` is the number of rows in ``samples``, and ``width`` is D. Without ``intercept``, the
    sums are not centred and b is zero. Returns A (D, D) and b (D,) in fp64, and the ridge.

    Raises:
        InputError: there are too few rows to hold one out, or fewer tokens than unknowns.
    """
    if rows < 2:
        raise InputError(
            f"{rows} calibration row is too few: choosing the ridge needs a held-out row",
            where="convert.rows",
            expected="at least 2 rows",
        )
    every = min(HELD_OUT_EVERY, rows)
    kept: Moments | None = None
    for row, x, e, ordinary in samples:
        if kept is None:
            shift = x.mean(0) if intercept else torch.zeros_like(x[0])
            kept, held_out, scored = (Moments.empty(width, shift) for _ in range(3))
        every_token = torch.ones_like(ordinary)
        if row % every == every - 1:
            held_out.add(x, e, every_token)
            scored.add(x, e, ordinary)
        else:
            kept.add(x, e, every_token)
    assert kept is not None
    everything = kept + held_out
    if everything.n <= 2 * width:
        raise InputError(
            f"{int(everything.n):,} calibration tokens are too few for a map of {width} x {width}",
            where="convert.rows",
            expected=f"more than {2 * width:,} tokens, twice the hidden size",
        )

    def means(sums: Moments) -> tuple[Tensor, Tensor]:
        return sums.means() if intercept else (torch.zeros_like(sums.x), torch.zeros_like(sums.e))

    fitted, unseen = kept.about(*means(kept)), scored.about(*means(kept))
    errors = {ridge: unseen.error(fitted.ridge_map(ridge)).item() for ridge in RIDGES}
    least = min(errors.values())  # rounding may make it negative if the fit is exact
    ridge = min(r for r, error in errors.items() if error <= least + TIE * abs(least))
    mean_x, mean_e = means(everything)
    map_DD = everything.about(mean_x, mean_e).ridge_map(ridge)
    return map_DD, mean_e - (mean_x + everything.shift.double()) @ map_DD, ridge
