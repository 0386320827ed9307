"""What was measured of each layer, as figures: scores, scores by size, and damage by strategy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import Damage, ModelProfile
from layerwright.tasks.report.formats import number, options
from layerwright.tasks.report.heat import Heat, heat
from layerwright.tasks.report.lines import LayerLine, LinePanel, layer_panel
from layerwright.tasks.report.looks import SPARE, looks, looks_of
from layerwright.tasks.report.strips import Strip, strip

SCORES = {
    "lazy_ratio": (
        "Lazy ratio",
        "share of attention on the first tokens and the recent window: near 1 the layer would "
        "lose little with that window",
    ),
    "linearity": (
        "Linearity, with the residual",
        "in-sample fit of one linear map to the whole layer: the nearer to 1, the more linear",
    ),
    "block_influence": (
        "Block influence",
        "1 minus the cosine of what enters and what leaves the layer: near 0 it changes little",
    ),
    "attention_entropy": (
        "Attention entropy",
        "nats: the higher, the more tokens the layer's attention is spread over",
    ),
    "attention_distance": (
        "Attention distance",
        "mean tokens between a query and what it attends to, first tokens left out: low layers "
        "look nearby",
    ),
    "sink_mass": (
        "Attention on the first tokens",
        "share of attention on the sinks: high where the layer often attends to nothing else",
    ),
}
LINEARITY = {
    "linearity": "with the residual",
    "linearity_delta": "without the residual",
    "linearity_delta_held_out": "without the residual, held out",
}
LINEARITY_FLOOR = -0.5
BY_SIZE = {
    "covered_mass": (
        "Covered mass by span",
        "share of attention within so many last tokens and the sinks: the span is long enough for "
        "a layer where its cell is dark",
    ),
    "angular_distance": (
        "Angular distance of runs",
        "turn of the stream over so many layers from this one on: where a cell is pale the run "
        "changes little",
    ),
}
_SIZED = re.compile(r"(.+)_(\d+)")
Column = list[float | None]


@dataclass(frozen=True)
class Table:
    """The numbers of a figure: a row for each layer."""

    head: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Figure:
    """``kind`` names the macro of charts.j2 that draws ``chart``."""

    kind: str
    chart: Strip | LinePanel | Heat
    table: Table


def profile_figures(profile: ModelProfile, plan: ConversionPlan | None = None) -> list[Figure]:
    """Every score and every damage that the profile holds; what it does not hold has no figure.

    Args:
        plan: gives the bars of single figures the colours of what the layers became.
    """
    scores = _score_columns(profile)
    kinds = _kinds(profile, plan)
    single, by_size = _by_size(scores)
    names = [n for n in SCORES if n in single]
    names += [n for n in single if n not in SCORES and n not in LINEARITY]
    found = []
    for name in names:
        title, help = SCORES.get(name, (name, "as its profiler defines it"))
        found.append(_bars(title, help, single[name], kinds))
    if len(fits := [n for n in LINEARITY if n in single]) > 1:
        found.append(_linearity({LINEARITY[n]: single[n] for n in fits}))
    for family, columns in by_size.items():
        title, help = BY_SIZE.get(family, (family, "as its profiler defines it"))
        found.append(Figure("heat", heat(title, help, columns), _table(columns)))
    return found + _damage_figures(profile, kinds)


def _kinds(profile: ModelProfile, plan: ConversionPlan | None) -> list[str]:
    if plan is None:
        return ["plain-bars"] * len(profile.layers)
    look, summary = looks(plan), plan.summary()
    return [look[summary[str(layer)]].colour for layer in range(plan.layers)]


def _score_columns(profile: ModelProfile) -> dict[str, Column]:
    """Every score of whole layers; those of single heads are left to profile.json."""
    names = dict.fromkeys(n for p in profile.layers for n in p.scores if ".head_" not in n)
    return {name: [p.scores.get(name) for p in profile.layers] for name in names}


def _by_size(
    scores: Mapping[str, Column],
) -> tuple[dict[str, Column], dict[str, dict[str, Column]]]:
    """Single scores, and families of scores that end in a number, by that number."""
    single, sized = {}, {}
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


def _bars(title: str, help: str, column: Column, kinds: Sequence[str]) -> Figure:
    return Figure("strip", strip(title, help, column, kinds), _table({title: column}))


def _linearity(columns: dict[str, Column]) -> Figure:
    low = min((v for c in columns.values() for v in c if v is not None), default=0.0)
    clipped = f"; what lies below {number(LINEARITY_FLOOR)} is drawn there"
    panel = layer_panel(
        "Linearity, three ways",
        "share of the layer that a linear map explains: the residual flatters it, and only what "
        "holds on unseen tokens can replace a layer" + clipped * (low < LINEARITY_FLOOR),
        [LayerLine(label, f"s{i}", c) for i, (label, c) in enumerate(columns.items(), SPARE[0])],
        floor=LINEARITY_FLOOR,
    )
    return Figure("lines", panel, _table(columns))


def _damage_figures(profile: ModelProfile, kinds: Sequence[str]) -> list[Figure]:
    specs = list(
        {
            d.strategy.model_dump_json(): d.strategy for p in profile.layers for d in p.damage
        }.values()
    )
    found: list[Figure] = []
    for title, help, read in (
        ("language", "rise of the NLL per text token, nats", _language),
        ("recall", "fall of the log-probability of the right answer, nats", _recall),
        ("KL to the base", "nats per text token", _kl),
    ):  # fmt: skip
        columns = {_words(s): _damage_column(profile, s, 1, read) for s in specs}
        columns = {k: c for k, c in columns.items() if any(v is not None for v in c)}
        if columns:
            title = f"Damage by strategy: {title}"
            found.append(_damage_by_strategy(title, help, columns, specs, kinds))
    for spec in specs:
        found += _probes(profile, spec) + _runs(profile, spec)
    return found


def _damage_by_strategy(
    title: str, help: str, columns: dict[str, Column], specs: list[Spec], kinds: Sequence[str]
) -> Figure:
    help += ", when that layer alone is converted: higher is worse"
    if len(columns) == 1:
        (words, column), *_ = columns.items()
        return _bars(title, f"{help}; {words}", column, kinds)
    look = looks_of(spec.name for spec in specs)
    colours = {_words(spec): look[spec.name].colour for spec in specs}
    lines = [LayerLine(words, colours[words], column) for words, column in columns.items()]
    return Figure("lines", layer_panel(title, help, lines), _table(columns))


def _probes(profile: ModelProfile, spec: Spec) -> list[Figure]:
    """The recall probes of one strategy side by side."""
    damages = [p.damage_of(spec) for p in profile.layers]
    names = dict.fromkeys(name for d in damages if d for name in d.probes)
    if not names:
        return []
    columns = {name: [d.probes.get(name) if d else None for d in damages] for name in names}
    chart = heat(
        f"Recall by probe: {_words(spec)}",
        "fall of the log-probability of each probe's answer, nats: a dark cell is a layer that "
        "this kind of recall needs",
        columns,
        zero=True,
    )
    return [Figure("heat", chart, _table(columns))]


def _runs(profile: ModelProfile, spec: Spec) -> list[Figure]:
    """Damage of runs of layers that became one, by the length of the run."""
    lengths = sorted(
        {d.layers for p in profile.layers for d in p.damage if d.strategy == spec} - {1}
    )
    if not lengths:
        return []
    found = []
    for what, read in (("language", _language), ("recall", _recall)):
        columns = {
            ("1 layer" if n == 1 else f"{n} layers"): _damage_column(profile, spec, n, read)
            for n in (1, *lengths)
        }
        chart = heat(
            f"Damage of runs: {what}, {_words(spec)}",
            "nats lost when so many layers from this one on become one: stay where it is pale",
            columns,
            zero=True,
        )
        found.append(Figure("heat", chart, _table(columns)))
    return found


def _language(damage: Damage) -> float | None:
    return damage.language_nats


def _recall(damage: Damage) -> float | None:
    return damage.recall_nats


def _kl(damage: Damage) -> float | None:
    return damage.kl_nats


def _damage_column(
    profile: ModelProfile, spec: Spec, layers: int, read: Callable[[Damage], float | None]
) -> Column:
    found = (p.damage_of(spec, layers) for p in profile.layers)
    return [read(damage) if damage else None for damage in found]


def _words(spec: Spec) -> str:
    return f"{spec.name}, {options(spec.options)}" if spec.options else spec.name


def _table(columns: Mapping[str, Column]) -> Table:
    layers = max(len(column) for column in columns.values())
    return Table(
        ["Layer", *columns],
        [
            [str(layer), *("–" if (v := c[layer]) is None else number(v) for c in columns.values())]  # noqa: RUF001
            for layer in range(layers)
        ],
    )
