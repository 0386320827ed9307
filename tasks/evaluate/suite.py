"""Check, estimate and measure the metrics of a recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.contracts.references import TextRef
from layerwright.tasks.disk import write_atomically
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.passes import TextPass
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.store.base import Store

if TYPE_CHECKING:  # evaluate's cache key must not depend on the other blocks of the recipe
    from layerwright.tasks.contracts.references import ModelRef
    from layerwright.tasks.recipe.recipe import Recipe


def check_metrics(
    metrics: Iterable[Metric], texts: Mapping[str, TextSource], *, where: str
) -> None:
    """Check the texts and the figures of the metrics in the recipe's field ``where``.

    Raises:
        InputError: a text is unknown or has another form, or two metrics measure the same figure.
    """
    field_of: dict[str, str] = {}
    for index, metric in enumerate(metrics):
        field = f"{where}.{index}"
        for text in metric.needed_texts():
            if text not in texts:
                raise InputError(
                    f"metric {metric.name!r} names the text {text!r}, which is not in data",
                    where=field,
                    expected=f"one of {', '.join(texts)}",
                )
            if (form := texts[text].form) != metric.form:
                raise InputError(
                    f"metric {metric.name!r} reads {text!r} as {metric.form}, and data.{text} has "
                    f"form {form}",
                    where=field,
                    remedy=f"set data.{text}.form: {metric.form}",
                )
        for name in metric.names():
            if name in field_of:
                raise InputError(
                    f"{name} is measured twice, here and by {field_of[name]}",
                    where=field,
                    expected="each figure from a single metric",
                    remedy="remove one of the two metrics, or change its options",
                )
            field_of[name] = field


def needed_texts(metrics: Iterable[Metric]) -> tuple[str, ...]:
    """The names of all texts that the metrics need, each once."""
    return tuple(dict.fromkeys(text for metric in metrics for text in metric.needed_texts()))


def needed_passes(metrics: Iterable[Metric]) -> tuple[TextPass, ...]:
    """All passes over texts that the metrics read."""
    return tuple(wanted for metric in metrics for wanted in metric.passes())


def check_items(metrics: Iterable[Metric], texts: Mapping[str, TextRef], store: Store) -> None:
    """`Metric.check_items` of all metrics whose texts are given."""
    for metric in metrics:
        names = metric.needed_texts()
        if metric.form == "items" and texts.keys() >= set(names):
            metric.check_items({name: store.open_tree(texts[name].sha256) for name in names})


def estimate_tokens(metrics: Sequence[Metric]) -> int:
    """Estimate the tokens that each arm is run over; a shared pass counts once."""
    shared = sum(text_pass.tokens for text_pass in set(needed_passes(metrics)))
    return shared + sum(metric.estimate_tokens() for metric in metrics)


def presentation_of(metrics: Iterable[Metric]) -> dict[str, Presentation]:
    """How reports show the figures of the metrics, in the order of the metrics."""
    return {prefix: shown for metric in metrics for prefix, shown in metric.presentation.items()}


def measure_metrics(
    metrics: Sequence[Metric], arms: Arms, folder: Path, what: str, log: Callable[[str], None]
) -> tuple[Figure, ...]:
    """Measure all metrics; results are saved in ``folder`` and not measured again."""
    figures: list[Figure] = []
    for index, metric in enumerate(arms.track(metrics, what)):
        path = folder / f"{index}-{metric.name}.json"
        if not path.is_file():
            started = time.perf_counter()
            results = [figure.model_dump(mode="json") for figure in metric.measure(arms)]
            write_atomically(path, json.dumps(results).encode())
            log(f"{what}: {metric.name} measured in {time.perf_counter() - started:.1f} s")
        figures += [Figure.model_validate(figure) for figure in json.loads(path.read_bytes())]
    return tuple(figures)


def seconds(recipe: Recipe, model: ModelRef, token_seconds: float) -> float:
    """Estimate the time of all metrics on all arms; metrics share passes, arms do not."""
    if recipe.evaluate is None:
        return 0.0
    arms = 3 if recipe.evaluate.control else 2
    return arms * estimate_tokens(recipe.evaluate.metrics) * token_seconds
