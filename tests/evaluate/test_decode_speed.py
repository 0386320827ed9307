"""Speed: every arm in turn, each repeat from a context of the same length; whole requests."""

import statistics

import pytest

from layerwright.tasks.evaluate.metrics import decode_speed as metric_module
from layerwright.tasks.evaluate.metrics.decode_speed import DecodeSpeed, rank
from layerwright.tasks.timing.speed import Speed

METRIC = DecodeSpeed(context_tokens=(20, 60), batches=(1, 2), new_tokens=4, repeats=3)


def test_arms_take_turns_with_the_same_work(make_arms, values, hybrid):
    models = {"base": hybrid(), "candidate": hybrid(streaming=(0, 1))}
    seen: list[tuple[str, tuple[int, ...], int]] = []

    def watch(arm):
        def hook(module, arguments, options):
            cache = options["past_key_values"]
            seen.append((arm, tuple(options["input_ids"].shape), cache.seen_tokens))

        return hook

    for arm, model in models.items():
        model.model.register_forward_pre_hook(watch(arm), with_kwargs=True)
    found = values(METRIC, make_arms([METRIC], **models))
    requests = []
    for arm, shape, old in seen:
        if old == 0:
            requests.append((arm, []))
        requests[-1][1].append((shape, old))
    per_load = 2 * (2 + 3)  # arms; a short pass, an uncounted round and three repeats
    assert len(requests) == 4 * per_load
    for place, (tokens, batch) in enumerate([(20, 1), (20, 2), (60, 1), (60, 2)]):
        one = requests[place * per_load : (place + 1) * per_load]
        assert [arm for arm, _ in one] == [
            "base", "base", "candidate", "candidate",  # each behind its own short pass
            "candidate", "base", "base", "candidate", "candidate", "base",
        ]  # fmt: skip
        short, whole = one[0][1], one[1][1]
        assert short == [((batch, min(64, tokens)), 0)]
        assert whole == [
            ((batch, tokens), 0),
            *[((batch, 1), tokens + step) for step in range(3)],  # the prompt gave the first token
        ]
        assert [steps for _, steps in one] == [short, whole, short, whole] + [whole] * 6
    assert {name for name, _ in found} == set(METRIC.names())
    for (name, _), measurement in found.items():
        assert measurement.value > 0
        assert measurement.higher_is_better == name.startswith("decode_tokens_per_s")
        if name.startswith(("latency_p95_ms", "peak_memory_bytes")):
            continue
        assert measurement.low <= measurement.value <= measurement.high
        assert measurement.count == 3
    assert METRIC.estimate_tokens() == 4 * (24 + 2 * 24 + 64 + 2 * 64)


def test_figures_follow_from_the_samples(make_arms, values, hybrid, monkeypatch):
    seconds = [0.030, 0.010, 0.020, 0.040]
    speed = Speed(
        prefill_seconds=(0.001,) * 4,
        first_token_seconds=(0.002,) * 4,
        decode_seconds_per_token=(0.5, 0.25, 1.0, 0.25),
        request_seconds=tuple(seconds),
        peak_bytes=1000,
    )
    monkeypatch.setattr(
        metric_module, "interleaved_speeds", lambda models, *_, **__: dict.fromkeys(models, speed)
    )
    metric = DecodeSpeed(context_tokens=(20,), batches=(4,), new_tokens=3, repeats=4)
    model = hybrid()
    found = values(metric, make_arms([metric], base=model))
    figures = {name: found[name, "base"] for name, arm in found if arm == "base"}
    assert {name: m.value for name, m in figures.items()} == {
        "prefill_ms.20.b4": pytest.approx(1),
        "first_token_ms.20.b4": pytest.approx(2),
        "decode_tokens_per_s.20.b4": pytest.approx(statistics.median([8, 16, 4, 16])),
        "latency_p50_ms.20+3.b4": pytest.approx(25),
        "latency_p95_ms.20+3.b4": pytest.approx(40),
        "peak_memory_bytes.20.b4": sum(p.nbytes for p in model.parameters())
        + sum(b.nbytes for b in model.buffers())
        + 1000,
    }
    assert "the slowest" in figures["latency_p95_ms.20+3.b4"].detail


def test_layers_that_are_read_in_turn_have_no_memory_of_their_own(
    make_arms, values, hybrid, monkeypatch
):
    speed = Speed((1.0,), (1.0,), (1.0,), (1.0,), peak_bytes=7)
    monkeypatch.setattr(
        metric_module, "interleaved_speeds", lambda models, *_, **__: dict.fromkeys(models, speed)
    )
    metric, streamed = DecodeSpeed(context_tokens=(20,)), hybrid()
    streamed.model.layers[1].self_attn.q_proj.to("meta")
    found = values(metric, make_arms([metric], base=hybrid(), candidate=streamed))
    assert found["peak_memory_bytes.20", "base"].value > 7
    assert found["peak_memory_bytes.20", "candidate"].value is None
    assert "compute.memory" in found["peak_memory_bytes.20", "candidate"].detail


@pytest.mark.parametrize(("samples", "place"), [(1, 1), (3, 3), (19, 19), (20, 19), (100, 95)])
def test_the_95th_percentile_is_a_sample(samples: int, place: int) -> None:
    assert rank(samples, 95) == place
    assert place / samples >= 0.95
    assert (place - 1) / samples < 0.95
