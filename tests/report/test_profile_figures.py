"""Figures of a profile: each only where there is something to draw, and each with its numbers."""

import pytest
from report.example_bundle import bundle
from report.example_profile import PROBES, rich_profile
from report.page_reader import Page

from layerwright.tasks.contracts.plan import ConversionPlan, PlanItem
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.heat import PALEST, heat
from layerwright.tasks.report.lines import LayerLine, layer_panel
from layerwright.tasks.report.page import render_page
from layerwright.tasks.report.profile_figures import ProfileChart, profile_figures

LAYERS = 12
PLAN = ConversionPlan(
    model_sha256="m",
    layers=LAYERS,
    context_tokens=1024,
    selector="by hand",
    items=(
        PlanItem(start=0, stop=6, strategy="keep"),
        PlanItem(start=6, stop=LAYERS, strategy="streaming"),
    ),
)


@pytest.fixture
def figures() -> dict[str, ProfileChart]:
    return {f.chart.title: f for f in profile_figures(rich_profile(), PLAN)}


def without(profile: ModelProfile, *scores: str, damage: bool = True) -> ModelProfile:
    layers = tuple(
        layer.model_copy(
            update={
                "scores": {k: v for k, v in layer.scores.items() if not k.startswith(scores)},
                "damage": layer.damage if damage else (),
            }
        )
        for layer in profile.layers
    )
    return profile.model_copy(update={"layers": layers})


def test_every_score_and_damage_has_its_figure(figures: dict[str, ProfileChart]) -> None:
    assert {title: f.kind for title, f in figures.items()} == {
        "Lazy ratio": "strip",
        "Linearity, with the residual": "strip",
        "Block influence": "strip",
        "Attention entropy": "strip",
        "Attention distance": "strip",
        "Attention on the first tokens": "strip",
        "Linearity, three ways": "lines",
        "Covered mass by span": "heat",
        "Angular distance of runs": "heat",
        "Damage by strategy: language": "lines",
        "Damage by strategy: recall": "lines",
        "Damage by strategy: KL to the base": "strip",
        "Recall by probe: streaming, sinks 4, window 252": "heat",
        "Recall by probe: streaming, sinks 4, window 28": "heat",
        "Damage of runs: language, remove": "heat",
        "Damage of runs: recall, remove": "heat",
    }


def test_what_was_not_measured_has_no_figure() -> None:
    none = without(rich_profile(), "", damage=False)
    assert profile_figures(none, PLAN) == []
    some = without(rich_profile(), "covered_mass", "linearity_delta", damage=False)
    titles = [f.chart.title for f in profile_figures(some)]
    assert "Covered mass by span" not in titles
    assert "Linearity, three ways" not in titles
    assert "Linearity, with the residual" in titles


def test_the_numbers_of_each_figure_are_there_for_every_layer(
    figures: dict[str, ProfileChart],
) -> None:
    for title, figure in figures.items():
        assert [row[0] for row in figure.table.rows] == [str(i) for i in range(LAYERS)], title
        assert {len(row) for row in figure.table.rows} == {len(figure.table.head)}, title
    spans = figures["Covered mass by span"].table
    assert spans.head == ["Layer", "32", "64", "128"]  # by size, and no single head
    language = figures["Damage by strategy: language"].table
    assert language.head[1:] == ["streaming, sinks 4, window 252", "streaming, sinks 4, window 28",
                                 "remove"]  # fmt: skip
    assert language.rows[3][1:] == ["0.002", "0.004", "–"]  # noqa: RUF001
    runs = figures["Damage of runs: language, remove"].table
    assert runs.head[1:] == ["1 layer", "2 layers"]
    assert runs.rows[LAYERS - 1][2] == "–"  # noqa: RUF001
    probes = figures["Recall by probe: streaming, sinks 4, window 28"].table
    assert tuple(probes.head[1:]) == PROBES


def test_bars_take_the_colour_of_what_the_layer_became(figures: dict[str, ProfileChart]) -> None:
    kinds = [bar[4] for bar in figures["Lazy ratio"].chart.bars]
    assert kinds == ["s0"] * 6 + ["s1"] * 6
    alone = {f.chart.title: f for f in profile_figures(rich_profile())}
    assert {bar[4] for bar in alone["Lazy ratio"].chart.bars} == {"plain-bars"}


def test_damage_of_all_sizes_can_be_read(figures: dict[str, ProfileChart]) -> None:
    panel = figures["Damage by strategy: language"].chart
    assert [s.kind for s in panel.series] == ["s1", "s1", "s7"]
    assert len({s.shape for s in panel.series}) == 3  # the two windows differ by mark and dashes
    small, large = panel.series[0].points[0], panel.series[0].points[5]
    labels = [float(label) for _, label in panel.y_ticks]
    assert labels == sorted(labels)
    assert labels[0] <= 0.01 < 0.1 < labels[-1]
    bottom = max(y for y, _ in panel.y_ticks)
    assert large[1] < small[1] < bottom - 8  # the small damages are off the zero line


def test_a_line_is_interrupted_where_nothing_was_measured(figures: dict[str, ProfileChart]) -> None:
    removed = figures["Damage by strategy: language"].chart.series[2]
    assert len(removed.points) == LAYERS - 1
    assert removed.path.count("M") == 2
    assert removed.path.split("M")[2].startswith(f"{removed.points[3][0]:g} ")


def test_what_lies_below_the_floor_is_drawn_there_and_said() -> None:
    panel = layer_panel("t", "h", [LayerLine("a", "s1", [-3.0, 0.2, 0.8])], floor=-0.5)
    (_, low, title), (_, mid, _), (_, high, _) = panel.series[0].points
    assert high < mid < low <= 150
    assert "layer 0: \N{MINUS SIGN}3" in title
    assert panel.reference is not None  # zero lies inside


def test_heat_is_darkest_where_the_figure_is_greatest() -> None:
    made = heat("t", "h", {"32": [0.2, None, 0.6], "64": [0.4, 0.5, 1.0]})
    shades = {title: opacity for _, _, opacity, title in made.cells}
    assert len(shades) == 5
    assert shades["64, layer 2: 1"] == 1.0
    assert shades["32, layer 0: 0.2"] == PALEST
    assert shades["32, layer 2: 0.6"] == pytest.approx((PALEST + 1) / 2, abs=1e-3)
    assert (made.low, made.high, made.help) == ("0.2", "1", "h")
    below = heat("t", "h", {"a": [-1.0, 2.0]}, zero=True)
    assert [c[2] for c in below.cells] == [PALEST, 1.0]
    assert below.low == "0"
    assert [c[2] for c in heat("t", "h", {"a": [0.0, 0.0]}).cells] == [PALEST] * 2


def test_one_great_damage_leaves_the_others_their_shades() -> None:
    made = heat("t", "h", {"a": [0.002, 0.004, 0.03, 5.0]}, zero=True)
    shades = [c[2] for c in made.cells]
    assert shades == sorted(shades)
    assert shades[2] > shades[0] + 0.2
    assert "logarithm" in made.help


def test_the_page_draws_all_of_them() -> None:
    made = bundle(layers=LAYERS)
    fields = {name: getattr(made, name) for name in ReportBundle.model_fields}
    page = Page(render_page(ReportBundle(**(fields | {"profile": rich_profile()}))))
    labels = [svg.get("aria-label") or "" for svg in page.all("svg")]
    for figure in profile_figures(rich_profile(), made.plan):
        assert any(label.startswith(figure.chart.title) for label in labels)
        assert figure.chart.help in page.text
    layers = page.text.split("measurements of each layer")[1].split("Reasons, layer by layer")[0]
    assert layers.count("Numbers") == len(profile_figures(rich_profile(), made.plan))
    assert "0.1235" not in page.text  # single heads are not spread out
