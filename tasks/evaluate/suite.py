"""The metrics of a recipe: made, checked against each other, and measured one by one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.store.base import Store


def build_metrics(
    specs: Iterable[Spec], texts: Iterable[str], *, where: str = "evaluate.metrics"
) -> tuple[Metric, ...]:
    """The metrics that a recipe names.

    Args:
        texts: the names in the recipe's ``data``.
        where: the list's path inside the recipe, for messages.

    Raises:
        InputError: an unknown metric, option or text, or a figure that two metrics both give.
    """
    known = tuple(texts)
    metrics: list[Metric] = []
    given: dict[str, str] = {}
    for index, spec in enumerate(specs):
        place = f"{where}.{index}"
        metric = build(Metric, spec, where=place)
        for text in metric.needed_texts():
            if text not in known:
                raise InputError(
                    f"metric {metric.name!r} names the text {text!r}, which is not in data",
                    where=place,
                    expected=f"one of {', '.join(known)}" if known else "a text under data",
                )
        for name in metric.names():
            if name in given:
                raise InputError(
                    f"{name} is measured twice, here and by {given[name]}",
                    where=place,
                    remedy="name each figure once: leave one of the two out",
                )
            given[name] = place
        metrics.append(metric)
    return tuple(metrics)


def needed_texts(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """All texts that the metrics need, each once."""
    return tuple(dict.fromkeys(text for metric in metrics for text in metric.needed_texts()))


def check_items(metrics: Iterable[Metric], texts: Mapping[str, TextRef], store: Store) -> None:
    """Read what the metrics ask, without a model, so far as it is among the texts.

    Raises:
        InputError: with file, line and field.
    """
    for metric in metrics:
        names = metric.needed_texts()
        if metric.form == "items" and texts.keys() >= set(names):
            metric.check_items({name: store.open_tree(texts[name].sha256) for name in names})


def estimate_tokens(metrics: Sequence[Metric]) -> int:
    """Roughly how many tokens each arm is run over; a pass that metrics share counts once."""
    passes = {wanted for metric in metrics for wanted in metric.passes()}
    return sum(wanted.tokens for wanted in passes) + sum(
        metric.estimate_tokens() for metric in metrics
    )


def measure_metrics(
    metrics: Sequence[Metric], arms: Arms, folder: Path, what: str, log: Callable[[str], None]
) -> tuple[Figure, ...]:
    """Measure all metrics; a finished one is kept in ``folder`` and not measured again.

    Args:
        what: stands before the overall progress bar and in each line of the log.
        log: hears of every metric that is finished.
    """
    figures: list[Figure] = []
    for index, metric in enumerate(arms.track(metrics, what)):
        path = folder / f"{index}-{metric.name}.json"
        if not path.is_file():
            started = time.perf_counter()
            found = [figure.model_dump(mode="json") for figure in metric.measure(arms)]
            write_atomically(path, json.dumps(found).encode())
            log(f"{what}: {metric.name} measured in {time.perf_counter() - started:.1f} s")
        figures += [Figure.model_validate(figure) for figure in json.loads(path.read_bytes())]
    return tuple(figures)
