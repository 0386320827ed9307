"""Heat maps of recall over prompt length and depth, one per probe and arm."""

import re
from collections.abc import Iterable, Sequence

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.evaluation import ARMS, Arm
from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.formats import MISSING, length, percent
from layerwright.tasks.report.heat import PALEST, ROW, Heat
from layerwright.tasks.report.profile_figures import ProfileChart, Table

RECALL = re.compile(r"recall\.(\w+)\.(\d+)")
HELP = "rows: depth; columns: tokens of a prompt"


class RecallCell(Contract):
    """One arm's answers at one length and depth: ``right`` of ``count`` are correct.

    ``right`` is None if an answer was not measured.
    """

    probe: str
    tokens: int
    depth: str
    arm: Arm
    right: int | None
    count: int

    @property
    def share(self) -> float | None:
        return None if self.right is None else self.right / self.count


def recall_cells(items: Iterable[ItemResult]) -> tuple[RecallCell, ...]:
    """The cells of all metrics ``recall.<probe>.<tokens>`` whose items have a depth as slice."""
    by_cell: dict[tuple[str, int, str, Arm], list[bool | None]] = {}
    for item in items:
        match = RECALL.fullmatch(item.metric)
        if match and item.slice.startswith("depth "):
            cell = (match[1], int(match[2]), item.slice, item.arm)
            by_cell.setdefault(cell, []).append(item.correct)
    return tuple(
        RecallCell(
            probe=probe,
            tokens=tokens,
            depth=depth,
            arm=arm,
            right=None if None in answers else sum(map(bool, answers)),
            count=len(answers),
        )
        for (probe, tokens, depth, arm), answers in by_cell.items()
    )


def recall_figures(cells: Sequence[RecallCell]) -> list[ProfileChart]:
    """One heat map per probe and arm, with the arms of a probe next to each other.

    All have the same shades: the palest cell is 0, full colour is 1.
    """
    return [
        _figure(probe, arm, [cell for cell in cells if (cell.probe, cell.arm) == (probe, arm)])
        for probe in dict.fromkeys(cell.probe for cell in cells)
        for arm in ARMS
        if any((cell.probe, cell.arm) == (probe, arm) for cell in cells)
    ]


def _figure(probe: str, arm: Arm, cells: Sequence[RecallCell]) -> ProfileChart:
    lengths = sorted({cell.tokens for cell in cells})
    depths = sorted({cell.depth for cell in cells}, key=_start)
    names = [depth.removeprefix("depth ") for depth in depths]
    at = {(cell.depth, cell.tokens): cell for cell in cells}
    title = f"{probe}, {arm}"
    drawn = [
        (
            lengths.index(tokens),
            ROW * depths.index(depth),
            PALEST + (1 - PALEST) * cell.share,
            f"{title}, {length(tokens)} tokens, {depth}: {cell.right} of {cell.count} right",
        )
        for (depth, tokens), cell in at.items()
        if cell.share is not None
    ]
    chart = Heat(
        title=title,
        help=HELP,
        columns=len(lengths),
        cells=drawn,
        rows=[(100 * (i + 0.5) / len(depths), name) for i, name in enumerate(names)],
        low="0",
        high="1",
        ticks=[(100 * (i + 0.5) / len(lengths), length(n)) for i, n in enumerate(lengths)],
        description="; ".join(
            f"at {length(tokens)} tokens "
            + ", ".join(f"{depth} {_result(at.get((depth, tokens)))}" for depth in depths)
            for tokens in lengths
        ),
    )
    body = [
        [name, *(_result(at.get((depth, tokens)), counted=True) for tokens in lengths)]
        for name, depth in zip(names, depths, strict=True)
    ]
    table = Table(["Depth", *(f"{length(tokens)} tokens" for tokens in lengths)], body)
    return ProfileChart("heat", chart, table)


def _start(depth: str) -> float:
    return float(depth.removeprefix("depth ").split("-")[0])


def _result(cell: RecallCell | None, *, counted: bool = False) -> str:
    if cell is None or cell.share is None:
        return MISSING
    return f"{cell.right} of {cell.count}" if counted else percent(cell.share)
