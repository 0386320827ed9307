"""Prefill selection: specs, models and selections that cannot be are refused."""

import pytest
from facts import says
from tiny import LAYERS, tiny_hybrid, tiny_llama_config, tiny_tokens

from layerwright.tasks.hybrid.cache import HybridCache
from layerwright.tasks.hybrid.configuration import FULL_LAYER
from layerwright.tasks.hybrid.families import from_base_config


def spec_of(full_layers: int = 1, **options) -> dict:
    mixer = {"full_layers": full_layers, "sinks": 2, "window": 6, "last_queries": 5}
    return {"mixer": {"kind": "prefill_selection", **mixer, **options}}


@pytest.fixture(scope="module")
def model():
    return tiny_hybrid(spec_of(), layers=(0, 1, 3))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ([(0, 2)], r"row 0: expected 2 distinct layers out of \[0, 1, 3\], got \[0, 2\]"),
        ([(0, 1), (3,)], "row 1: expected 2"),
        ([(1, 1)], "row 0: expected 2"),
        ([(0, 1, 3)], "row 0: expected 2"),
    ],
)
def test_impossible_selections_are_refused(model, selection, message):
    with pytest.raises(ValueError, match=message):
        HybridCache(model.config, selection=selection)


def test_selections_for_other_batches_and_other_models_are_refused(model):
    cache = HybridCache(model.config, selection=[(0, 1)])
    with pytest.raises(ValueError, match=says("selection", "1", "2")):
        model(tiny_tokens(2, 9), past_key_values=cache)
    with pytest.raises(ValueError, match="no prefill_selection layer"):
        HybridCache(tiny_hybrid(FULL_LAYER).config, selection=[()])


def test_layers_must_agree(model):
    specs = [spec_of(1), FULL_LAYER, spec_of(2), spec_of(1)]
    with pytest.raises(ValueError, match="layers 0 and 2: mixer 'prefill_selection'"):
        from_base_config(tiny_llama_config(), specs)
    before = [dict(spec) for spec in model.config.layer_specs]
    with pytest.raises(ValueError, match="full attention first"):
        model.set_layer_spec(3, spec_of(1, window=9))
    assert model.config.layer_specs == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"full_layers": -1}, "full_layers.*0.*-1"),
        ({"window": 0}, "window.*1"),
        ({"window": None}, "window.*1.*None"),
        ({"last_queries": 0}, "last_queries.*1"),
        ({"sinks": 1.5}, "sinks.*0.*1.5"),
        ({"full_layers": True}, "got True"),
        ({"span": 3}, "takes 'full_layers', 'sinks', 'window', 'last_queries'"),
    ],
)
def test_bad_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        from_base_config(tiny_llama_config(), [spec_of(**options)] * LAYERS)
