"""Block influence against cosines of the hidden states that Transformers gives."""

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama, tiny_tokens

from layerwright.tasks.passes.blocks import Visit
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.block_influence import BlockInfluence


def influence_of(x: torch.Tensor, y: torch.Tensor, ids=None, **options) -> float:
    ids = torch.ones(x.shape[:2], dtype=torch.long) if ids is None else ids
    visitor = BlockInfluence(**options).begin(tiny_hybrid(LAYER_SPECS["full"]), ids)
    visitor.visit(Visit(0, None, None, ids, 0, x, y))
    return visitor.record()["block_influence"].item()


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def test_equals_the_cosines_of_all_hidden_states() -> None:
    rows = tiny_tokens(3, 37)
    # one layer more, because Transformers shows its last state behind the final norm
    states = tiny_llama()(rows, output_hidden_states=True).hidden_states
    (found,) = SharedPass([BlockInfluence()], tiny_hybrid(LAYER_SPECS["full"]), rows).run()
    assert len(found.scores) == LAYERS
    for layer in range(LAYERS - 1):
        cosines = torch.cosine_similarity(states[layer].double(), states[layer + 1].double(), -1)
        assert cosines.shape == (3, 37)
        assert found.scores[layer] == {
            "block_influence": pytest.approx(1 - cosines.mean().item(), abs=1e-6)
        }


def test_what_only_scales_has_none_and_what_turns_round_has_two() -> None:
    x = normal(2, 9, 16)
    assert influence_of(x, 3 * x) == pytest.approx(0, abs=1e-7)
    assert influence_of(x, -x) == pytest.approx(2, abs=1e-7)
    turned = torch.cat([-x[..., 8:], x[..., :8]], -1)  # a right angle
    assert influence_of(x, turned) == pytest.approx(1, abs=1e-6)


def test_small_turns_are_told_apart() -> None:
    x = torch.zeros(1, 5, 3)
    x[..., 0] = 1
    y = x.clone()
    y[..., 1] = 1e-3
    assert influence_of(x, y) == pytest.approx(5e-7, rel=1e-4)


def test_massive_first_and_bos_tokens_count_only_as_in_the_paper() -> None:
    x, y = normal(4, 30, 16), normal(4, 30, 16, seed=1)
    ids = torch.ones(4, 30, dtype=torch.long)
    ids[:, 9] = 256  # the tiny model's BOS
    x[:, 20] *= 1e4
    ordinary = [t for t in range(30) if t not in (0, 9, 20)]
    cosines = torch.cosine_similarity(x.double(), y.double(), -1)
    assert influence_of(x, y, ids) == pytest.approx(1 - cosines.mean().item(), abs=1e-6)
    without = influence_of(x, y, ids, massive=10.0)
    assert without == pytest.approx(1 - cosines[:, ordinary].mean().item(), abs=1e-6)
    x[:, [0, 9]], y[:, 20] = 1.0, 1e6
    assert influence_of(x, y, ids, massive=10.0) == pytest.approx(without, abs=1e-9)
