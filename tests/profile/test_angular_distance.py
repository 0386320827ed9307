"""Angular distance against angles of the hidden states that Transformers gives."""

import math
from itertools import pairwise

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama, tiny_tokens

from layerwright.tasks.passes.blocks import Visit
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.angular_distance import AngularDistance


def scores_of(states: list[torch.Tensor]) -> list[dict[str, float]]:
    """Of blocks between the given states (B, T, D)."""
    rows = torch.ones(states[0].shape[:2], dtype=torch.long)
    records = []
    for layer, (before, after) in enumerate(pairwise(states)):
        visitor = AngularDistance().begin(tiny_hybrid(LAYER_SPECS["full"]), rows)
        visitor.visit(Visit(layer, None, None, rows, 0, before, after))
        records.append(visitor.record())
    return AngularDistance().findings(records).scores


@torch.inference_mode()
def test_equals_the_angles_between_all_hidden_states_of_the_last_tokens() -> None:
    rows = tiny_tokens(3, 29)
    states = tiny_llama()(rows, output_hidden_states=True).hidden_states
    (found,) = SharedPass([AngularDistance()], tiny_hybrid(LAYER_SPECS["full"]), rows).run()
    for layer, scores in enumerate(found.scores):
        assert list(scores) == [f"angular_distance_{n}" for n in range(1, LAYERS - layer + 1)]
        # Transformers shows its last state behind the final norm
        for n in range(1, LAYERS - layer):
            x, y = (states[i][:, -1].double() for i in (layer, layer + n))
            cosines = torch.cosine_similarity(x, y, -1)
            expected = (cosines.arccos() / math.pi).mean().item()
            assert scores[f"angular_distance_{n}"] == pytest.approx(expected, abs=1e-6)


def test_only_the_lengths_that_are_asked_for_and_fit() -> None:
    profiler = AngularDistance(lengths=(2, 4, 9))
    (found,) = SharedPass([profiler], tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(2, 9)).run()
    both = ["angular_distance_2", "angular_distance_4"]
    assert [list(scores) for scores in found.scores] == [both, both[:1], both[:1], []]


def test_angles_along_a_circle_add_up() -> None:
    angles = [0.0, 0.3, 0.4, 0.9, 1.5]
    scores = scores_of(
        [torch.tensor([[[9.0, -9.0], [math.cos(a), math.sin(a)]]]) * 7 for a in angles]
    )
    assert scores[1]["angular_distance_2"] == pytest.approx(0.6 / math.pi, abs=1e-6)
    assert scores[0]["angular_distance_4"] == pytest.approx(1.5 / math.pi, abs=1e-6)


def test_equal_and_opposite_ends_are_at_the_ends_of_the_scale() -> None:
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    scores = scores_of([x, 2 * x, 3 * x, -x, x])
    assert scores[0]["angular_distance_2"] == pytest.approx(0, abs=1e-7)
    assert scores[2]["angular_distance_1"] == pytest.approx(1, abs=1e-7)


@torch.inference_mode()
def test_the_batches_do_not_matter() -> None:
    rows = tiny_tokens(5, 11)
    model = tiny_hybrid(LAYER_SPECS["full"])
    (together,) = SharedPass([AngularDistance()], model, rows).run()
    each = [SharedPass([AngularDistance()], model, row[None]).run()[0].scores for row in rows]
    for layer in range(LAYERS):
        for name, value in together.scores[layer].items():
            mean = sum(one[layer][name] for one in each) / 5
            assert value == pytest.approx(mean, abs=1e-9)
