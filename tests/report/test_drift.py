"""The stream's distance by layer, from the items to the page."""

from report.example_bundle import bundle
from report.page_reader import Page, check_form, check_self_contained

from layerwright.tasks.contracts.items import ItemResult
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.drift import drift_figures, layer_drifts
from layerwright.tasks.report.page import render_page


def items() -> list[ItemResult]:
    values = {"candidate": [0.0, None, 0.25, 0.125], "control": [0.0, 0.1, 0.1, 0.1]}
    return [
        ItemResult(metric="stream_drift.docs", arm=arm, item=f"layer {i}", value=value)
        for arm, some in values.items()
        for i, value in reversed(list(enumerate(some)))
    ]


def test_a_panel_for_a_text_with_its_numbers() -> None:
    drifts = layer_drifts(items())
    assert drifts[0].values == (0.0, None, 0.25, 0.125)
    (figure,) = drift_figures(drifts)
    assert figure.table.head == ["Layer", "candidate", "control"]
    assert figure.table.rows[1] == ["1", "not measured", "0.1"]
    assert len(figure.chart.series) == 2


def test_the_page_shows_it_where_it_was_measured() -> None:
    fields = {name: getattr(bundle(), name) for name in ReportBundle.model_fields}
    text = render_page(ReportBundle(**(fields | {"drift": layer_drifts(items())})))
    page = Page(text)
    check_form(page)
    check_self_contained(text)
    (figure,) = drift_figures(layer_drifts(items()))
    assert page.draws(figure.chart.title)
    assert page.says("1", "not measured", "0.1", section="layers")
    assert not Page(render_page(bundle())).draws(figure.chart.title)
