"""The pure parts under the page: formats, scales, charts, limits, the bundle."""

import math

import pytest
from facts import missing
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from report.example_bundle import PER_TOKEN, bundle, measurement, plan
from report.shown import presentation

from layerwright.tasks.contracts.evaluation import EvalReport
from layerwright.tasks.contracts.gate import Check
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.contracts.promotion import Registration
from layerwright.tasks.report import formats
from layerwright.tasks.report.bundle import ReportBundle
from layerwright.tasks.report.dots import dot_panel
from layerwright.tasks.report.heat import strip
from layerwright.tasks.report.layers import layer_map, map_columns
from layerwright.tasks.report.lines import MAX_POINTS, CurvePoint, curve_panel
from layerwright.tasks.report.looks import looks
from layerwright.tasks.report.measurements import limit_of, rows
from layerwright.tasks.report.scales import WIDTH, scale_for

finite = st.floats(-1e9, 1e9, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-9)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "not measured"),
        (0, "0"),
        (29.34, "29.34"),
        (1.05, "1.05"),
        (0.93216, "0.9322"),
        (0.0005, "0.0005"),
        (-0.0022, "\N{MINUS SIGN}0.0022"),
        (0.000031, "3.1e-05"),
        (999.97, "1,000"),
        (17540.0, "17,540"),
        (3.1e9, "3.1e+09"),
    ],
)
def test_number(value: float | None, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (377487360, "360 MiB"),
        (391680, "382 KiB"),
        (538060120, "513 MiB"),
        (2**31, "2 GiB"),
        (None, "not measured"),
    ],
)
def test_data_size(value: float | None, text: str) -> None:
    assert formats.data_size(value) == text


def test_other_formats() -> None:
    assert formats.percent(-0.581, signed=True) == "\N{MINUS SIGN}58.1 %"
    assert formats.percent(0.0133, signed=True) == "+1.3 %"
    assert formats.percent(-0.0001, signed=True) == "0 %"
    assert [formats.duration(s) for s in (4.2, 42, 214.6, 7320)] == [
        "4.2 s",
        "42 s",
        "3 min 35 s",
        "2 h 2 min",
    ]
    assert formats.moment("2026-11-23T09:21:40+01:00") == "23 Nov 2026, 08:21 UTC"
    assert formats.moment("soon") == "soon"
    assert [formats.length(n) for n in (8192, 1500, 512)] == ["8K", "1,500", "512"]
    assert formats.count(134_515_008) == "134.5 M"


@settings(max_examples=500, deadline=None, derandomize=True)
@given(
    st.lists(finite, min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0.1]),
)
@example([0.0], True, False, False, 0.0)  # every layer without damage
@example([0.999, 0.999], False, False, False, 0.0)  # every layer the same, far from zero
@example([-0.002, 0.001, 0.0005, 3.0], False, False, True, 0.0)  # one layer that carries all
def test_a_scale_keeps_order_and_stays_inside(
    values: list[float], zero: bool, log: bool, bend: bool, pad: float
) -> None:
    scale = scale_for(values, 10, 320, zero=zero, log=log, bend=bend, pad=pad)
    places = [scale(v) for v in sorted(values)]
    assert places == sorted(places)
    assert all(10 <= place <= 320 for place in places)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(10 <= place <= 320 for place, _ in ticks)
    assert len({label for _, label in ticks}) == len(ticks) or scale.high - scale.low < 1e-3 * max(
        abs(scale.low), abs(scale.high)
    )


def test_ticks_are_round() -> None:
    linear, decades = scale_for([0.96, 1.02], 0, 100), scale_for([0.01, 0.9], 0, 100, log=True)
    assert [label for _, label in linear.ticks()] == ["0.96", "0.98", "1", "1.02"]
    assert [label for _, label in decades.ticks()] == ["0.01", "0.1", "1"]


def test_dots_stand_where_their_figures_are() -> None:
    made = bundle(control=True)
    found = rows(made.evaluation)
    family = [row for row in found if row.family == "perplexity_ratio"]
    panel = dot_panel(family, found, made.gate)
    assert [row.label for row in panel.rows] == ["python_docs", "olmo_passages"]
    for row in panel.rows:
        assert [dot.arm for dot in row.dots] == ["candidate", "control"]
        for dot in row.dots:
            assert 0 <= dot.low < dot.x < dot.high <= WIDTH
        assert row.limit > panel.reference  # 1.05 lies right of 1
    assert panel.rows[0].dots[1].x < panel.reference  # the control gained on its own domain


@pytest.mark.parametrize(
    ("compare", "value", "limit", "expected"),
    [
        ("value", 30.0, 31.0, 31.0),
        ("ratio", 1.5, 1.05, 21.0),
        ("difference", 10.0, 2.0, 22.0),
        ("p_value", 1.5, 0.05, None),
    ],
)
def test_the_limit_comes_on_the_scale_of_the_metric(
    compare: str, value: float, limit: float, expected: float | None
) -> None:
    report = EvalReport(
        base_sha256="b",
        candidate_sha256="c",
        device="cpu",
        measurements=(
            measurement("perplexity.x", "base", 20.0, "perplexity"),
            measurement("perplexity.x", "candidate", 30.0, "perplexity"),
        ),
        presentation=presentation(),
    )
    check = Check(
        metric="perplexity.x",
        rule="",
        compare=compare,
        value=value,
        limit=limit,
        is_floor=False,
        margin=0.0,
        passed=True,
        severity="fail",
    )
    decision = bundle().gate.model_copy(update={"checks": (check,)})
    found = rows(report)
    assert limit_of(found[0], found, decision) == expected


def test_a_long_curve_is_thinned_but_keeps_its_ends_and_what_was_kept() -> None:
    made = [CurvePoint(10 * s, s, 0, 1 / s, kept=s == 1234) for s in range(1, 5001)]
    (series,) = curve_panel("loss", "h", made, "nats", [50_000]).series
    assert len(series.points) <= MAX_POINTS + 2
    assert not missing(series.points[0][2], "step 1", "10 tokens", "1 nats")
    assert not missing(series.points[-1][2], "step 5000", "50,000 tokens")
    (ringed,) = series.ringed
    assert not missing(series.points[ringed][2], "step 1234")
    assert not series.marked


def test_bars_stand_on_zero_and_point_the_right_way() -> None:
    made = strip("t", "h", [0.2, None, -0.1, 0.0], ["s0"] * 4)
    assert made.zero is not None
    assert len(made.bars) == 3  # what was not measured has no bar
    (_, top, _, tall, _, _), (_, below, _, _, _, title), _ = made.bars
    assert top + tall == pytest.approx(made.zero, abs=0.2)
    assert below == pytest.approx(made.zero, abs=0.2)
    assert title == "layer 2: \N{MINUS SIGN}0.1"
    assert not missing(made.description, "layer 0")


def test_values_far_from_zero_become_dashes_on_a_cut_axis() -> None:
    made = strip("t", "h", [0.99, 0.995, 0.999], ["s1"] * 3)
    assert made.zero is None
    assert (made.bottom, made.top) == ("0.99", "0.999")
    assert made.bars[0][1] > made.bars[2][1]


@pytest.mark.parametrize("value", [0.0, -0.5, 0.99])
def test_a_strip_of_equal_values_is_drawn(value: float) -> None:
    made = strip("t", "h", [value] * 5, ["s0"] * 5)
    assert len(made.bars) == 5
    assert all(0 <= y <= 100 and 0 < tall <= 100 for _, y, _, tall, _, _ in made.bars)


def test_letters_and_colours_are_told_apart() -> None:
    names = ["keep", "streaming", "ssm", "short_convolution", "kernel", "linear"]
    items = tuple(PlanItem(start=i, stop=i + 1, strategy=n) for i, n in enumerate(names))
    mixed = plan().model_copy(update={"items": items, "layers": len(items)})
    found = looks(mixed)
    assert len({look.letter for look in found.values()}) == len(names)
    assert len({look.colour for look in found.values()}) == len(names)
    assert found["keep"].colour == "s0"
    assert found["streaming"].letter == "S"


@pytest.mark.parametrize(("layers", "columns"), [(30, 15), (32, 16), (24, 12), (36, 18), (80, 16)])
def test_the_maps_last_row_is_full(layers: int, columns: int) -> None:
    assert map_columns(layers) == columns
    assert len(layer_map(plan(layers))) == layers


def test_predicted_kv_comes_from_the_plan_at_its_own_length() -> None:
    made = bundle()
    assert made.predicted_kv(8192) == PER_TOKEN * (18 * 255 + 12 * 8192)
    assert made.predicted_kv(2048) is None


def test_a_rejected_run_cannot_carry_a_registration() -> None:
    made = bundle(accepted=False)
    fields = {name: getattr(made, name) for name in ReportBundle.model_fields}
    fields["registration"] = Registration(name="m", version="1", alias="challenger", found=False)
    with pytest.raises(ValidationError, match="registration"):
        ReportBundle(**fields)


def test_the_example_is_what_it_says() -> None:
    made = bundle()
    assert made.verdict == "accepted"
    assert bundle(accepted=False).verdict == "rejected"
    assert all(math.isfinite(m.value) for m in made.evaluation.measurements)
