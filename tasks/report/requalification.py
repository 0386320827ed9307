"""The page of a requalification: verdict, alarms, trend, and the measurements of all arms."""

from datetime import datetime
from fnmatch import fnmatchcase

from layerwright.tasks.contracts.requalification import TrendPoint
from layerwright.tasks.recipe.gate import WatchRule
from layerwright.tasks.report.bundle import RequalificationBundle
from layerwright.tasks.report.dots import dot_panels
from layerwright.tasks.report.formats import moment, number
from layerwright.tasks.report.gate import gate_section, rejection
from layerwright.tasks.report.lineage import requalification_digests, steps
from layerwright.tasks.report.lines import BOTTOM, LEFT, RIGHT, TOP, LinePanel, Series
from layerwright.tasks.report.measurements import Row, rows
from layerwright.tasks.report.scales import scale_for
from layerwright.tasks.report.template import template

MAX_TRENDS = 8  # metrics whose trend is shown if the recipe watches none


def render_requalification(bundle: RequalificationBundle) -> str:
    """The whole page. It loads nothing from the network; the same bundle gives the same bytes."""
    all_rows = rows(bundle.evaluation)
    quality = [row for row in all_rows if row.known.part == "quality"]
    shown = watched(bundle, all_rows)
    return template("requalification.html.j2").render(
        bundle=bundle,
        parameters=f"Version {bundle.version} of {bundle.registered_name}",
        verdict=verdict(bundle),
        **gate_section(bundle.evaluation, bundle.gate),
        rows=all_rows,
        panels=dot_panels(quality, all_rows, bundle.gate),
        bands=[(rule, _band(rule)) for rule in bundle.watch],
        trend_metrics=shown,
        trend_panels=[panel for name in shown if (panel := trend_panel(name, bundle.trend))],
        steps=steps(bundle),
        digests=requalification_digests(bundle),
    )


def verdict(bundle: RequalificationBundle) -> str:
    """The decision and the number of alarms, in two sentences."""
    if bundle.gate.accepted:
        valid_until = moment(bundle.gate.expires_at)
        text = f"The version still passes: the decision is valid until {valid_until}."
    else:
        text = f"The version may no longer be promoted: {rejection(bundle.gate)}."
    if not bundle.watch:
        return text
    alarms = len(bundle.alarms)
    if not alarms:
        return f"{text} All figures are inside their bands."
    return f"{text} {alarms} {'figure is' if alarms == 1 else 'figures are'} outside the band."


def watched(bundle: RequalificationBundle, all_rows: list[Row]) -> list[str]:
    """The metrics whose trend is shown: the watched ones, or else the first quality metrics."""
    names = [row.metric for row in all_rows if "candidate" in row.arms]
    chosen = [n for n in names if any(fnmatchcase(n, rule.metric) for rule in bundle.watch)]
    return chosen or [r.metric for r in all_rows if r.known.part == "quality"][:MAX_TRENDS]


def _band(rule: WatchRule) -> str:
    ends = {"at least": rule.min_ratio, "at most": rule.max_ratio}
    return " and ".join(f"{side} {end:g}" for side, end in ends.items() if end is not None)


def trend_panel(name: str, trend: tuple[TrendPoint, ...]) -> LinePanel | None:
    """One metric over time; None if it was measured fewer than two times."""
    known = [(datetime.fromisoformat(p.at), p.values[name]) for p in trend if name in p.values]
    if len(known) < 2:
        return None
    first = known[0][0]
    days = [(at - first).total_seconds() / 86400 for at, _ in known]
    x = scale_for(days, LEFT, RIGHT, pad=0.04)
    y = scale_for([value for _, value in known], BOTTOM, TOP)
    whens, values = [moment(at.isoformat()) for at, _ in known], [number(v) for _, v in known]
    titles = (f"{when}: {value}" for when, value in zip(whens, values, strict=True))
    points = [(x(day), y(v), t) for day, (_, v), t in zip(days, known, titles, strict=True)]
    return LinePanel(
        title=name,
        help=f"{values[0]} → {values[-1]}",
        series=[Series("candidate", points, marked=len(points) <= 30)],
        x_ticks=x.ticks(4),
        y_ticks=y.ticks(5),
        description=f"from {values[0]} on {whens[0]} to {values[-1]} on {whens[-1]}",
        x_name="days since the first requalification",
    )
