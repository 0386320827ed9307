"""Exact covers of minimal cost, by integer programming (HiGHS)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from layerwright.tasks.choose.columns import Column, DamageWeights
from layerwright.tasks.errors import StepError

Vector = NDArray[np.float64]
Limit = tuple[Vector, float]  # (N,) the amount that each column uses, and the largest total

MICRONATS = 1e6  # unit of the objective: HiGHS's gap of 1e-6 units is far below measured damages


def solve(
    costs: Vector, columns: Sequence[Column], limits: Sequence[Limit], weights: DamageWeights
) -> list[Column] | None:
    """Return the columns of the cheapest plan, in layer order; None if no plan meets the limits.

    Args:
        costs: (N,) in nats.
        weights: for the tie breaks.
    """
    mask = least_cover(costs * MICRONATS + _tie_breaks(columns, weights), columns, limits)
    if mask is None:
        return None
    chosen = [column for column, taken in zip(columns, mask, strict=True) if taken]
    return sorted(chosen, key=lambda column: column.start)


def _tie_breaks(columns: Sequence[Column], weights: DamageWeights) -> Vector:
    """(N,) micronats: 0 for a kept layer, between 1 and 1.01 for a converted column."""
    keys = [
        (weights.signed(column.damage), column.kv_bytes, index)
        for index, column in enumerate(columns)
        if column.candidate is not None
    ]
    extra = np.zeros(len(columns))
    for rank, (_, _, index) in enumerate(sorted(keys)):
        extra[index] = 1 + 0.01 * rank / len(keys)
    return extra


def least_cover(
    cost: Vector, columns: Sequence[Column], limits: Sequence[Limit]
) -> NDArray[np.bool_] | None:
    """Return the cheapest exact cover of the layers within the limits; None if there is none.

        min cost x  s.t.  A x = 1,  uses_i x <= limit_i,  x binary

    Args:
        cost: (N,) cost of each column.

    Returns:
        (N,) mask of the chosen columns.
    """
    layers = max(column.stop for column in columns)
    layer_of = [layer for column in columns for layer in column.layers]
    column_of = [index for index, column in enumerate(columns) for _ in column.layers]
    cover = csr_array((np.ones(len(layer_of)), (layer_of, column_of)), shape=(layers, len(columns)))
    within = [LinearConstraint(uses[None, :], -np.inf, limit) for uses, limit in limits]
    with _stdout_to_stderr():
        solution = milp(
            cost,
            integrality=np.ones(len(columns)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(cover, 1, 1), *within],
            options={"mip_rel_gap": 0.0},
        )
    if solution.status == 2:  # infeasible
        return None
    if solution.x is None:
        raise StepError(f"HiGHS found no plan: {solution.message}")
    return np.asarray(solution.x > 0.5)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Redirect C's stdout to stderr, because HiGHS 1.12 prints a debug line to stdout.

    C would flush that line at the end of the process, after the JSON that must be the last line.
    """
    c_library = ctypes.CDLL(None)
    c_library.fflush(None)
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        c_library.fflush(None)
        os.dup2(stdout, 1)
        os.close(stdout)
