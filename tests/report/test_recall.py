"""Recall as heat maps: cells from items, base beside candidate, numbers as text."""

import pytest
from facts import missing
from report.example_bundle import bundle
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.heat import PALEST, ROW
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.recall import RecallCell, recall_cells, recall_figures


def items() -> list[ItemResult]:
    """Two lengths and three depths of four prompts each; the candidate forgets the first third of
    the longer ones, and one answer there could not be measured.
    """
    made = []
    for arm in ("base", "candidate"):
        for tokens in (512, 2048):
            for prompt in range(12):
                part = prompt // 4
                lost = arm == "candidate" and tokens == 2048 and part == 0
                unknown = arm == "candidate" and tokens == 512 and prompt == 11
                made.append(
                    ItemResult(
                        metric=f"recall.multi_key.{tokens}",
                        arm=arm,
                        item=f"prompt {prompt}",
                        correct=None if unknown else not (lost and prompt),
                        slice=f"depth {part / 3:.3g}-{(part + 1) / 3:.3g}",
                    )
                )
    made.append(ItemResult(metric="perplexity.docs", arm="base", item="row 0", value=3.0))
    return made


def test_cells_count_what_was_right() -> None:
    cells = recall_cells(items())
    assert len(cells) == 2 * 2 * 3
    by = {(c.arm, c.tokens, c.depth): (c.right, c.count) for c in cells}
    assert by["base", 2048, "depth 0-0.333"] == (4, 4)
    assert by["candidate", 2048, "depth 0-0.333"] == (1, 4)
    assert by["candidate", 512, "depth 0.667-1"] == (None, 4)


def test_figures_stand_side_by_side_with_equal_shades() -> None:
    base, candidate = recall_figures(recall_cells(items()))
    assert (base.chart.title, candidate.chart.title) == ("multi_key, base", "multi_key, candidate")
    assert base.chart.columns == 2
    assert [name for _, name in base.chart.rows] == [
        "0-0.333", "0.333-0.667", "0.667-1",
    ]  # fmt: skip
    assert {opacity for _, _, opacity, _ in base.chart.cells} == {1.0}
    shades = {(x, y // ROW): opacity for x, y, opacity, _ in candidate.chart.cells}
    assert shades[1, 0] == pytest.approx(PALEST + (1 - PALEST) / 4)
    assert (0, 2) not in shades  # not measured
    assert candidate.table.head == ["Depth", "512 tokens", "2K tokens"]
    assert candidate.table.rows[0] == ["0-0.333", "4 of 4", "1 of 4"]
    assert candidate.table.rows[2] == ["0.667-1", "not measured", "4 of 4"]


def test_the_page_has_the_maps_and_the_same_as_text() -> None:
    fields = {name: getattr(bundle(), name) for name in ReportBundle.model_fields}
    text = render_page(ReportBundle(**(fields | {"recall": recall_cells(items())})))
    page = Page(text)
    check_form(page)
    check_self_contained(text)
    labels = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    (label,) = [label for label in labels if label.startswith("multi_key, candidate")]
    assert not missing(label, "2K tokens", "depth 0-0.333 25 %", "depth 0.333-0.667 100 %")
    assert page.says("0-0.333", "4 of 4", "1 of 4", section="quality")
    assert not Page(render_page(bundle())).draws("multi_key")
    assert RecallCell.model_validate_json(recall_cells(items())[0].model_dump_json())
