"""Quality per token spent: curves over tokens, stages as bands, and what was kept."""

import math

import pytest
from facts import missing
from report.example_bundle import bundle
from report.example_healing import FIRST, NLL, ROW, STEPS
from report.page_reader import Page

from layerwright.tasks.contracts.training import (
    FinetuneReport,
    RegularizationReport,
    RegularizationTrial,
)
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.healing import (
    loss_panels,
    quality_gain,
    quality_panels,
    validation_table,
)
from layerwright.tasks.report.page import render_page


@pytest.fixture
def healed() -> FinetuneReport:
    return bundle().finetune


def page_of(report: FinetuneReport) -> Page:
    made = bundle()
    fields = {name: getattr(made, name) for name in ReportBundle.model_fields}
    return Page(render_page(ReportBundle(**(fields | {"finetune": report}))))


def test_quality_is_drawn_over_tokens_with_what_was_kept(healed: FinetuneReport) -> None:
    nll, perplexity, kl = quality_panels(healed)
    (series,) = nll.series
    assert len(series.points) == len(healed.validation)
    places = [x for x, _, _ in series.points]
    assert places == sorted(places)
    kept = [series.points[i][2] for i in sorted(series.ringed)]
    assert len(kept) == 2
    assert not missing(kept[0], "16", "8,192", "3.43")
    assert not missing(kept[1], "32", "16,384", "3.38")
    lowest = max(series.points, key=lambda point: point[1])
    assert lowest[2].startswith("step 32,")  # a lower NLL stands lower
    assert f"{math.exp(NLL[32]):.4g}" in perplexity.series[0].points[5][2]
    assert not missing(kl.title, "KL", "base")


def test_stages_are_bands_that_meet_where_one_ends(healed: FinetuneReport) -> None:
    for panel in (*quality_panels(healed), *loss_panels(healed)):
        (a, b, first), (c, d, second) = panel.bands
        assert (first, second) == ("stage 1", "stage 2")
        assert a < b == c < d
        at_the_end = [
            x for x, _, title in panel.series[0].points if f" {FIRST * ROW:,} tok" in title
        ]
        assert all(x == b for x in at_the_end)
    loss = loss_panels(healed)[0].series[0]
    assert loss.breaks == {FIRST}  # losses of different objectives are not joined
    assert loss.path.count("M") == 2


def test_every_objective_has_its_curve_in_its_unit(healed: FinetuneReport) -> None:
    panels = {panel.title: panel for panel in loss_panels(healed)}
    assert [title.split()[-1] for title in list(panels)[1:]] == [
        "hidden_state", "next_token", "logit_kl",
    ]  # fmt: skip
    _, hidden, _, kl = panels.values()
    assert len(hidden.series[0].points) == FIRST
    assert len(kl.series[0].points) == STEPS - FIRST
    assert "nats" in kl.help


def test_what_the_tokens_bought_is_said(healed: FinetuneReport) -> None:
    # of the 0.14 nats that were gained, 0.09 were there after 16 steps, 0.06 after 8
    facts = ("3.52", "3.38", "nats", "33.78", "29.37", "16,384", "8,192")
    assert not missing(quality_gain(healed), *facts)
    worse = tuple(p.model_copy(update={"nll": 4.0 + p.step / 10}) for p in healed.validation)
    rise = quality_gain(healed.model_copy(update={"validation": worse}))
    assert "not" in rise.split()
    assert "8,192" not in rise
    assert quality_gain(healed.model_copy(update={"validation": ()})) is None


def test_stages_and_validation_are_tables(healed: FinetuneReport) -> None:
    page = page_of(healed)
    assert page.says("1 hidden_state", "16; state of step 16 kept", section="finetune")
    second = ("1 logit_kl + 0.5 next_token", "24, stopped early; state of step 32 kept")
    assert page.says(*second, section="finetune")
    table = validation_table(healed)
    assert len(table.rows) == len(healed.validation)
    assert table.rows[5] == ["32", "2", "16,384", "160", "3.38", "29.37", "0.02"]


def test_the_section_shows_it_and_says_what_is_missing(healed: FinetuneReport) -> None:
    page = page_of(healed)
    assert quality_gain(healed) in page.text
    assert page.says("stopped early", section="finetune")
    assert len([c for c in page.all("circle") if c.get("class") == "ring"]) == 6
    assert len([r for r in page.all("rect") if (r.get("class") or "").startswith("band")]) == 14
    plain = healed.model_copy(
        update={"validation": (), "stages": (), "stopped_early": False, "processes": 2,
                "points": tuple(p for p in healed.points if p.stage == 0)}
    )  # fmt: skip
    page = page_of(plain)
    assert page.says("no", "finetune.validation", section="finetune")
    assert not [r for r in page.all("rect") if (r.get("class") or "").startswith("band")]
    assert "Processes 2" in page.text
    nothing = page_of(healed.model_copy(update={"steps": 0}))
    assert nothing.says("no", "fine-tuning", section="finetune")
    assert not nothing.has("figure", "finetune")


def test_training_before_removal_is_told() -> None:
    made = bundle()
    fields = {name: getattr(made, name) for name in ReportBundle.model_fields}
    report = RegularizationReport(
        model=made.model,
        layers=(12, 13),
        weight=0.1,
        trials=(RegularizationTrial(weight=0.1, nll=3.61), RegularizationTrial(weight=1, nll=3.7)),
        nll_before=4.9,
        nll_after=3.55,
        steps=20,
        tokens=20_480,
    )
    page = Page(render_page(ReportBundle(**(fields | {"regularization": report}))))
    facts = ("12, 13", "20,480 tokens", "0.1", "4.9", "3.55", "nats")
    assert page.says(*facts, section="finetune")
    assert page.says("3.61", section="finetune")  # every penalty that was tried
    assert page.says("regularized", made.model.sha256, section="lineage")
    plain = Page(render_page(made))
    assert not plain.says("20,480 tokens", section="finetune")
    assert not plain.says("regularized", section="lineage")
