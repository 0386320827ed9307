"""Metrics from a recipe: what is refused before anything runs, and what the estimates count."""

import pytest
from facts import says
from pydantic import ValidationError

from layerwright.tasks.components import build, discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import check_metrics, estimate_tokens, needed_texts
from layerwright.tasks.recipe.data import TextSource
from layerwright.tasks.recipe.evaluate import EvaluateOptions

TEXTS = {name: TextSource(source="local:t") for name in ("docs", "tales", "tuning")}


def metrics_of(*specs: Spec) -> list[Metric]:
    metrics = [build(Metric, spec) for spec in specs]
    check_metrics(metrics, TEXTS, where="evaluate.metrics")
    return metrics


def test_every_metric_is_found_by_its_name():
    expected = {"perplexity", "divergence", "recall", "kv_cache", "decode_speed", "overlap"}
    assert expected <= set(discover(Metric))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Spec(name="perplexty"), "unknown metric"),
        (Spec(name="perplexity", texts=["docs"], row=8), "row"),
        (Spec(name="perplexity", texts=["docs"], rows=0), "greater than 0"),
        (Spec(name="perplexity", texts=[]), "at least 1"),
        (Spec(name="kv_cache", tokens=[0]), "greater than 0"),
        (Spec(name="decode_speed", new_tokens="many"), "integer"),
    ],
)
def test_a_wrong_metric_is_refused_in_its_place(spec, message):
    with pytest.raises(ValidationError, match=message) as refused:
        EvaluateOptions(metrics=(Spec(name="recall"), spec))
    assert refused.value.errors()[0]["loc"][:2] == ("metrics", 1)


@pytest.mark.parametrize(
    "spec",
    [
        Spec(name="perplexity", texts=["dox"]),
        Spec(name="overlap", texts=["docs"], against="dox"),
    ],
)
def test_a_text_that_is_not_there_is_refused_in_its_place(spec):
    with pytest.raises(InputError, match="'dox', which is not in data") as refused:
        metrics_of(Spec(name="recall"), spec)
    assert refused.value.where == "evaluate.metrics.1"


def test_a_figure_is_measured_once():
    specs = [
        Spec(name="perplexity", texts=["docs"], rows=8),
        Spec(name="perplexity", texts=["tales", "docs"], rows=4),
    ]
    with pytest.raises(InputError, match=says("perplexity.docs", "twice")):
        metrics_of(*specs)


def test_needed_texts_and_tokens():
    metrics = metrics_of(
        Spec(name="perplexity", texts=["docs", "tales"], rows=8, row_tokens=512),
        Spec(name="divergence", texts=["tales"], rows=8, row_tokens=512),  # the same pass
        Spec(name="divergence", texts=["docs"], rows=2, row_tokens=512),
        Spec(name="recall", prompts=10, prompt_tokens=[600], probes=["passkey", "copying"]),
        Spec(name="overlap", texts=["docs"], against="tuning"),
        Spec(name="kv_cache", tokens=[512, 8192], prefill_tokens=1024),
    )
    assert needed_texts(metrics) == ("docs", "tales", "tuning")
    assert estimate_tokens(metrics) == (8 + 8 + 2) * 512 + 2 * 10 * 600 + 512
