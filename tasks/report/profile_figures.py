"""Charts of the profile: scores per layer, scores by size, and damage by strategy."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.report.formats import number, options
from layerwright.tasks.report.heat import Heat, Strip, heat, strip
from layerwright.tasks.report.lines import LayerLine, LinePanel, layer_panel
from layerwright.tasks.report.looks import SPARE, looks, looks_of

SCORES = {
    "lazy_ratio": (
        "Lazy ratio",
        "share of attention on the first tokens and the recent window; a layer near 1 loses "
        "little with that window",
    ),
    "linearity": (
        "Linearity, with the residual",
        "in-sample fit of one linear map to the whole layer; 1 is exactly linear",
    ),
    "block_influence": (
        "Block influence",
        "1 minus the cosine of the layer's input and output; a layer near 0 changes little",
    ),
    "attention_entropy": (
        "Attention entropy",
        "nats; higher means that attention is spread over more tokens",
    ),
    "attention_distance": (
        "Attention distance",
        "mean number of tokens between a query and its keys, without the first tokens; low means "
        "that the layer attends to nearby tokens",
    ),
    "sink_mass": (
        "Attention on the first tokens",
        "share of attention on the sinks; high means that the layer often attends to little else",
    ),
}
LINEARITY = {
    "linearity": "with the residual",
    "linearity_delta": "without the residual",
    "linearity_delta_held_out": "without the residual, on held-out tokens",
}
LINEARITY_FLOOR = -0.5
BY_SIZE = {
    "covered_mass": (
        "Covered mass by span",
        "share of attention on the last tokens (rows: how many) and the sinks; a dark cell means "
        "that this span is long enough for the layer",
    ),
    "angular_distance": (
        "Angular distance of runs",
        "angle between the stream before and after a run of layers that starts here (rows: how "
        "many); a pale cell means that the run changes little",
    ),
}
_SIZED = re.compile(r"(.+)_(\d+)")
Column = list[float | None]


class Table(NamedTuple):
    """The numbers of a chart, usually one row per layer."""

    head: list[str]
    rows: list[list[str]]


class ProfileChart(NamedTuple):
    """A chart with its table. ``kind`` is the macro of charts.j2 that draws it."""

    kind: str
    chart: Strip | LinePanel | Heat
    table: Table


def profile_figures(
    profile: ModelProfile, plan: ConversionPlan | None = None
) -> list[ProfileChart]:
    """A chart of each score and each kind of damage in the profile.

    Args:
        plan: colours the bars by the layers' strategies.
    """
    scores = _score_columns(profile)
    kinds = ["plain-bars"] * len(profile.layers)
    if plan is not None:
        look, summary = looks(plan), plan.summary()
        kinds = [look[summary[str(layer)]].colour for layer in range(plan.layers)]
    single, by_size = _by_size(scores)
    names = [n for n in SCORES if n in single]
    names += [n for n in single if n not in SCORES and n not in LINEARITY]
    figures = []
    for name in names:
        title, help = SCORES.get(name, (name, "see its profiler"))
        figures.append(_bars(title, help, single[name], kinds))
    if len(fits := [n for n in LINEARITY if n in single]) > 1:
        figures.append(_linearity({LINEARITY[n]: single[n] for n in fits}))
    for family, columns in by_size.items():
        title, help = BY_SIZE.get(family, (family, "see its profiler"))
        figures.append(_heat(title, help, columns))
    return figures + _damage_figures(profile, kinds)


def _score_columns(profile: ModelProfile) -> dict[str, Column]:
    """The scores of whole layers; scores of single heads are only in profile.json."""
    names = dict.fromkeys(n for p in profile.layers for n in p.scores if ".head_" not in n)
    return {name: [p.scores.get(name) for p in profile.layers] for name in names}


def _by_size(
    scores: Mapping[str, Column],
) -> tuple[dict[str, Column], dict[str, dict[str, Column]]]:
    """Single scores; and scores whose names end in a number, grouped by family and number."""
    single: dict[str, Column] = {}
    sized: dict[str, dict[int, Column]] = {}
    for name, column in scores.items():
        if match := _SIZED.fullmatch(name):
            sized.setdefault(match[1], {})[int(match[2])] = column
        else:
            single[name] = column
    families = {
        family: {str(size): columns[size] for size in sorted(columns)}
        for family, columns in sized.items()
    }
    return single, families


def _bars(title: str, help: str, column: Column, kinds: Sequence[str]) -> ProfileChart:
    return ProfileChart("strip", strip(title, help, column, kinds), table({title: column}))


def _heat(title: str, help: str, columns: dict[str, Column], *, zero: bool = False) -> ProfileChart:
    return ProfileChart("heat", heat(title, help, columns, zero=zero), table(columns))


def _linearity(columns: dict[str, Column]) -> ProfileChart:
    low = min((v for c in columns.values() for v in c if v is not None), default=0.0)
    clipped = f"; values below {number(LINEARITY_FLOOR)} are drawn there"
    panel = layer_panel(
        "Linearity, three ways",
        "share of the layer that a linear map explains. The residual makes it look higher; what "
        "counts for replacing a layer is the share on held-out tokens"
        + clipped
        * (low < LINEARITY_FLOOR),
        [LayerLine(label, f"s{i}", c) for i, (label, c) in enumerate(columns.items(), SPARE[0])],
        floor=LINEARITY_FLOOR,
    )
    return ProfileChart("lines", panel, table(columns))


def _damage_figures(profile: ModelProfile, kinds: Sequence[str]) -> list[ProfileChart]:
    damages = (d for p in profile.layers for d in p.damage)
    specs = list({d.strategy.model_dump_json(): d.strategy for d in damages}.values())
    figures: list[ProfileChart] = []
    for title, help, field in (
        ("language", "increase of the NLL per text token, nats", "language_nats"),
        ("recall", "decrease of the log-probability of the right answer, nats", "recall_nats"),
        ("KL to the base", "nats per text token", "kl_nats"),
    ):
        columns = {_label(s): _damage_column(profile, s, 1, field) for s in specs}
        columns = {k: c for k, c in columns.items() if any(v is not None for v in c)}
        if columns:
            title = f"Damage by strategy: {title}"
            figures.append(_damage_by_strategy(title, help, columns, specs, kinds))
    for spec in specs:
        figures += _probes(profile, spec) + _runs(profile, spec)
    return figures


def _damage_by_strategy(
    title: str, help: str, columns: dict[str, Column], specs: list[Spec], kinds: Sequence[str]
) -> ProfileChart:
    help += ", when only this layer is converted; higher is worse"
    if len(columns) == 1:
        (label, column), *_ = columns.items()
        return _bars(title, f"{help}; {label}", column, kinds)
    look = looks_of(spec.name for spec in specs)
    colours = {_label(spec): look[spec.name].colour for spec in specs}
    lines = [LayerLine(label, colours[label], column) for label, column in columns.items()]
    return ProfileChart("lines", layer_panel(title, help, lines), table(columns))


def _probes(profile: ModelProfile, spec: Spec) -> list[ProfileChart]:
    """The damage of one strategy by recall probe; empty if the profile has no probes."""
    damages = [p.damage_of(spec) for p in profile.layers]
    names = dict.fromkeys(name for d in damages if d for name in d.probes)
    if not names:
        return []
    columns = {name: [d.probes.get(name) if d else None for d in damages] for name in names}
    help = (
        "decrease of the log-probability of each probe's answer, nats; a dark cell means that "
        "this kind of recall needs the layer"
    )
    return [_heat(f"Recall by probe: {_label(spec)}", help, columns, zero=True)]


def _runs(profile: ModelProfile, spec: Spec) -> list[ProfileChart]:
    """The damage of converting runs of layers together, by length of the run."""
    lengths = {d.layers for p in profile.layers for d in p.damage if d.strategy == spec} - {1}
    names = {n: "1 layer" if n == 1 else f"{n} layers" for n in (1, *sorted(lengths))}
    help = (
        "nats lost when a run of layers that starts here is converted together (rows: how many); "
        "pale is better"
    )
    figures = []
    for what in ("language", "recall") if lengths else ():
        columns = {s: _damage_column(profile, spec, n, f"{what}_nats") for n, s in names.items()}
        figures.append(_heat(f"Damage of runs: {what}, {_label(spec)}", help, columns, zero=True))
    return figures


def _damage_column(profile: ModelProfile, spec: Spec, layers: int, field: str) -> Column:
    return [getattr(p.damage_of(spec, layers), field, None) for p in profile.layers]


def _label(spec: Spec) -> str:
    return f"{spec.name}, {options(spec.options)}" if spec.options else spec.name


def table(columns: Mapping[str, Sequence[float | None]], missing: str = "\N{EN DASH}") -> Table:
    """A row per layer; ``missing`` stands for a value that was not measured."""
    rows = zip(*columns.values(), strict=True)
    cells = ([missing if v is None else number(v) for v in row] for row in rows)
    return Table(["Layer", *columns], [[str(layer), *row] for layer, row in enumerate(cells)])
