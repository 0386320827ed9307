"""Counted parameters are those of real models."""

import pytest
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid

from layerwright.tasks.models.parameters import ParameterCounts


@pytest.mark.parametrize("tied", [True, False])
def test_counts_are_those_of_the_model(tied: bool) -> None:
    base = tiny_hybrid(LAYER_SPECS["full"], tie_word_embeddings=tied)
    counts = ParameterCounts(base.config)
    for name, spec in LAYER_SPECS.items():
        model = tiny_hybrid(spec, (1,), tie_word_embeddings=tied)
        config = model.config.layer_specs
        per_layer = [counts.layer(i, config[i]) for i in range(LAYERS)]
        assert counts.others() + sum(per_layer) == sum(p.numel() for p in model.parameters()), name
    assert base.config.layer_specs == tiny_hybrid(LAYER_SPECS["full"]).config.layer_specs
