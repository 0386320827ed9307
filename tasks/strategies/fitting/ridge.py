"""Ridge regression from running sums, with the ridge chosen on held-out rows.

Shapes: N tokens, D inputs, E = D outputs.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from layerwright.tasks.errors import InputError
from layerwright.tasks.strategies.fitting.moments import Centred, Moments

# shares of each channel's variance; below the smallest, rounding errors dominate
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
HELD_OUT_EVERY = 4
TIE = 0.01  # errors within this share of the least count as equal; the smallest ridge wins

Sample = tuple[int, Tensor, Tensor, Tensor]  # row, x (T, D), e (T, D), ordinary (T, 1)


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

    Args:
        samples: row index, inputs X, outputs E, and 1 for ordinary or 0 for other tokens.
        width: D.
        rows: number of rows in ``samples``.
        intercept: fit b; otherwise the sums are not centred and b is zero.

    Returns:
        A (D, D) and b (D,) in fp64, and the ridge.

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

    def about(sums: Moments, means: tuple[Tensor, Tensor]) -> Centred:
        return sums.about(*means)

    def means(sums: Moments) -> tuple[Tensor, Tensor]:
        mean_x, mean_e = sums.means()
        return (
            (mean_x, mean_e) if intercept else (torch.zeros_like(mean_x), torch.zeros_like(mean_e))
        )

    fitted, unseen = about(kept, means(kept)), about(scored, means(kept))
    errors = {ridge: unseen.error(fitted.ridge_map(ridge)).item() for ridge in RIDGES}
    least = min(errors.values())  # rounding may make it negative if the fit is exact
    ridge = min(r for r, error in errors.items() if error <= least + TIE * abs(least))
    mean_x, mean_e = means(everything)
    map_DD = about(everything, (mean_x, mean_e)).ridge_map(ridge)
    return map_DD, mean_e - (mean_x + everything.shift.double()) @ map_DD, ridge
