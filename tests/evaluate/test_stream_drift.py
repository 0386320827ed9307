"""The distance of the stream: nothing below what was converted, and as the model runs it."""

import pytest
import torch
from tiny import LAYERS

from layerwright.tasks.evaluate.metrics.stream_drift import StreamDrift
from layerwright.tasks.evaluate.passes import TextPass

DRIFT = StreamDrift(texts=("english",), rows=2, row_tokens=64)


def test_it_begins_where_a_layer_was_converted(make_arms, values, hybrid):
    base, candidate = hybrid(), hybrid(streaming=(2,))
    arms = make_arms([DRIFT], candidate=candidate, control=hybrid())
    figures = {f.measurement.arm: f for f in DRIFT.measure(arms)}
    assert set(figures) == {"candidate", "control"}
    assert figures["control"].measurement.value == 0
    drifts = [item.value for item in figures["candidate"].items]
    assert drifts[:2] == [0, 0]
    assert all(value > 0 for value in drifts[2:])
    assert figures["candidate"].measurement.value == pytest.approx(sum(drifts) / LAYERS)

    # hooked, as a model runs them itself
    ids = arms.texts.rows(TextPass("english", 2, 64))
    seen = {}
    for name, model in (("base", base), ("candidate", candidate)):
        block = model.model.layers[3]
        hook = block.register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        with torch.inference_mode():
            model(ids)
        hook.remove()
    distance = (seen["candidate"] - seen["base"]).norm(dim=-1) / seen["base"].norm(dim=-1)
    assert drifts[3] == pytest.approx(distance.mean().item(), rel=1e-5)


def test_what_is_finished_is_not_run_again(make_arms, hybrid, forwards):
    arms = make_arms([DRIFT], candidate=hybrid(streaming=(1,)))
    first = list(DRIFT.measure(arms))
    ran = len(forwards)
    assert ran == 4, "base and candidate, two rows each"
    assert list(DRIFT.measure(arms)) == first
    assert len(forwards) == ran
