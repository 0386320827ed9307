"""The step as a whole, on a tiny checkpoint in a store."""

import shutil
from pathlib import Path

from tiny import LAYERS
from tiny_profile import PROFILERS, inputs, options

from layerwright.tasks.components import discover
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.profile import CacheGeometry
from layerwright.tasks.profile.base import Profiler
from layerwright.tasks.profile.model import profile_model
from layerwright.tasks.strategies.streaming import Streaming

STREAMING = Streaming(sinks=2, window=14)
OF_HEADS = ("attention_entropy", "attention_distance", "sink_mass", "covered_mass_16")
SCORES = {
    "angular_distance_1",
    "block_influence",
    "lazy_ratio",
    "linearity",
    "linearity_delta",
    "linearity_delta_held_out",
    "trsp_order",
    "trsp_scale",
    *(f"{score}{part}" for score in OF_HEADS for part in ("", ".head_0", ".head_1")),
}


def test_every_layer_gets_every_score_and_damage_and_twice_the_same(tmp_path: Path) -> None:
    model, text, ctx = inputs(tmp_path)
    profile = profile_model(model, text, options(*PROFILERS), (STREAMING,), ctx)
    assert [one.layer for one in profile.layers] == list(range(LAYERS))
    for one in profile.layers:
        assert set(one.scores) == SCORES
        assert 0 < one.scores["lazy_ratio"] < 1
        assert one.damage_of(STREAMING.spec) is not None
    assert profile.tokens == 400
    assert profile.geometry == CacheGeometry(kv_heads=2, head_dim=8, element_bytes=4)
    assert profile.base_kv_bytes(10) == 10 * LAYERS * 2 * 2 * 8 * 4, "keys and values, fp32"
    assert profile.reference["nll"] > 0 > profile.reference["key_log_prob.passkey"]
    shutil.rmtree(ctx.workdir)
    again = profile_model(model, text, options(*PROFILERS), (STREAMING,), ctx)
    assert again.model_copy(update={"seconds": profile.seconds}) == profile


def test_profilers_are_found_and_one_alone_will_do(tmp_path: Path) -> None:
    assert set(discover(Profiler)) == {spec.name for spec in PROFILERS}
    model, text, ctx = inputs(tmp_path)
    alone = options(Spec(name="laziness", sinks=2, window=14))
    profile = profile_model(model, text, alone, (STREAMING,), ctx)
    assert set(profile.layers[0].scores) == {"lazy_ratio"}
    assert profile.layers[0].damage == ()
