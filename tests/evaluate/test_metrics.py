"""Metrics from a recipe: what is refused before anything runs, and what the estimates count."""

import pytest
from facts import says

from layerwright.tasks.components import discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.suite import build_metrics, estimate_tokens, needed_texts

TEXTS = ("docs", "tales", "tuning")


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
        (Spec(name="perplexity", texts=["dox"]), "'dox', which is not in data"),
        (Spec(name="overlap", texts=["docs"], against="dox"), "'dox', which is not in data"),
        (Spec(name="kv_cache", tokens=[0]), "greater than 0"),
        (Spec(name="decode_speed", new_tokens="many"), "integer"),
    ],
)
def test_a_wrong_metric_is_refused_with_its_place(spec, message):
    with pytest.raises(InputError, match=message) as refused:
        build_metrics([Spec(name="recall"), spec], TEXTS)
    assert refused.value.where.startswith("evaluate.metrics.1")


def test_a_figure_is_measured_once():
    specs = [
        Spec(name="perplexity", texts=["docs"], rows=8),
        Spec(name="perplexity", texts=["tales", "docs"], rows=4),
    ]
    with pytest.raises(InputError, match=says("perplexity.docs", "twice")):
        build_metrics(specs, TEXTS)


def test_needed_texts_and_tokens():
    metrics = build_metrics(
        [
            Spec(name="perplexity", texts=["docs", "tales"], rows=8, row_tokens=512),
            Spec(name="divergence", texts=["tales"], rows=8, row_tokens=512),  # the same pass
            Spec(name="divergence", texts=["docs"], rows=2, row_tokens=512),
            Spec(name="recall", prompts=10, prompt_tokens=[600], probes=["passkey", "copying"]),
            Spec(name="overlap", texts=["docs"], against="tuning"),
            Spec(name="kv_cache", tokens=[512, 8192], prefill_tokens=1024),
        ],
        TEXTS,
    )
    assert needed_texts(metrics) == ("docs", "tales", "tuning")
    assert estimate_tokens(metrics) == (8 + 8 + 2) * 512 + 2 * 10 * 600 + 512
