"""Exact covers of least cost, by integer programming (HiGHS)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from layerwright.tasks.choose.columns import Column, Price
from layerwright.tasks.errors import StepError

Vector = NDArray[np.float64]
Limit = tuple[Vector, float]  # what one unit of each column uses, and how much there is

MICRONATS = 1e6  # objective's unit: HiGHS closes gaps to 1e-6 of it, far below any measured damage


def solve(
    costs: Vector, columns: Sequence[Column], limits: Sequence[Limit], price: Price
) -> list[Column] | None:
    """The chosen columns in the layers' order; ``costs`` (N,) in nats. None: no plan."""
    picked = least_cover(costs * MICRONATS + _tie_breaks(columns, price), columns, limits)
    if picked is None:
        return None
    chosen = [column for column, taken in zip(columns, picked, strict=True) if taken]
    return sorted(chosen, key=lambda column: column.start)


def _tie_breaks(columns: Sequence[Column], price: Price) -> Vector:
    """(N,) micronats: nothing for what is kept, one and a little more for what is not."""
    keys = [
        (price.signed(column.damage), column.kv_bytes, index)
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
    """The exact cover of the layers of least cost within the limits, or None if there is none.

        min cost x  s.t.  A x = 1,  uses_i x <= limit_i,  x binary

    Args:
        cost: (N,).

    Returns:
        A mask (N,) of the columns.
    """
    layers = max(column.stop for column in columns)
    rows = [layer for column in columns for layer in column.layers]
    of = [index for index, column in enumerate(columns) for _ in column.layers]
    cover = csr_array((np.ones(len(rows)), (rows, of)), shape=(layers, len(columns)))
    rows_of_limits = [LinearConstraint(uses[None, :], -np.inf, limit) for uses, limit in limits]
    with _stdout_to_stderr():
        solution = milp(
            cost,
            integrality=np.ones(len(columns)),
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(cover, 1, 1), *rows_of_limits],
            options={"mip_rel_gap": 0.0},
        )
    if solution.status == 2:  # infeasible
        return None
    if solution.x is None:
        raise StepError(f"HiGHS found no plan: {solution.message}")
    return np.asarray(solution.x > 0.5)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """HiGHS 1.12 prints a line of its debugging to C's stdout, which is ours to keep clean.

    C's buffer is written out when the process ends, behind the JSON that must be the last line.
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
