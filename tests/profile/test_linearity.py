"""Linearity against numpy's least squares on the hidden states themselves."""

import numpy as np
import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_tokens

from layerwright.tasks.errors import InputError, StepError
from layerwright.tasks.passes.blocks import Visit, run_blocks
from layerwright.tasks.profile.base import SharedPass
from layerwright.tasks.profile.profilers.linearity import Linearity
from layerwright.tasks.strategies.fitting.ridge import Moments

WIDTH = 24


class States:
    """Collects what the profiler must not: all hidden states."""

    def __init__(self) -> None:
        self.pairs: dict[int, list[tuple[torch.Tensor, torch.Tensor]]] = {}

    def visit(self, visit: Visit) -> None:
        self.pairs.setdefault(visit.layer, []).append((visit.x_in, visit.x_out))

    def record(self) -> dict[str, torch.Tensor]:
        return {}

    def of(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = zip(*self.pairs[layer], strict=True)
        return tuple(torch.cat(part).double().numpy() for part in (x, y))


def visit_of(x: torch.Tensor, y: torch.Tensor, first_row: int = 0) -> Visit:
    ids = torch.ones(x.shape[:2], dtype=torch.long)
    return Visit(0, None, None, ids, first_row, x, y)


def scores_in(visitor) -> dict[str, float]:
    return {name: value.item() for name, value in visitor.record().items()}


def scores_of(x: torch.Tensor, y: torch.Tensor, **options) -> dict[str, float]:
    model = tiny_hybrid(LAYER_SPECS["full"])
    accumulator = Linearity(**options).begin(model, torch.zeros(len(x), 1000, dtype=torch.long))
    accumulator.visit(visit_of(x, y))
    return scores_in(accumulator)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def shares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """1 - least squared error over the variance of y, and over that of y - x."""
    x, y = x - x.mean(0), y - y.mean(0)
    error = np.linalg.norm(x @ np.linalg.lstsq(x, y, rcond=None)[0] - y) ** 2
    return 1 - error / np.linalg.norm(y) ** 2, 1 - error / np.linalg.norm(y - x) ** 2


def test_equals_least_squares_on_all_hidden_states() -> None:
    rows = tiny_tokens(8, 60)
    model = tiny_hybrid(LAYER_SPECS["full"])
    (found,) = SharedPass([Linearity()], model, rows).run()
    states = States()
    run_blocks(model, rows, [lambda: states])
    assert len(found.scores) == LAYERS
    for layer, scores in enumerate(found.scores):
        x, y = states.of(layer)
        norms = [np.linalg.norm(part, axis=-1) for part in (x, y)]
        kept = np.all([n <= 10 * np.median(n, axis=1, keepdims=True) for n in norms], axis=0)
        kept[:, 0] = False
        linearity, delta = shares(x[kept], y[kept])
        assert scores["linearity"] == pytest.approx(linearity, abs=1e-5)
        assert scores["linearity_delta"] == pytest.approx(delta, abs=1e-5)

        held = np.zeros_like(kept)
        held[3::4] = True
        fit, test = kept & ~held, kept & held
        mean_x, mean_e = x[fit].mean(0), (y - x)[fit].mean(0)
        xc, ec = x[fit] - mean_x, (y - x)[fit] - mean_e
        gram = xc.T @ xc
        map_DD = np.linalg.solve(gram + 0.1 * np.diag(np.diag(gram)), xc.T @ ec)
        ev = (y - x)[test] - mean_e
        error = np.linalg.norm((x[test] - mean_x) @ map_DD - ev) ** 2
        expected = 1 - error / np.linalg.norm(ev) ** 2
        assert scores["linearity_delta_held_out"] == pytest.approx(expected, abs=1e-5)


def test_an_affine_block_is_exactly_linear() -> None:
    x = normal(8, 100, WIDTH) * torch.logspace(-1, 1.5, WIDTH) + 5
    y = x @ normal(WIDTH, WIDTH, seed=1) + normal(WIDTH, seed=2)
    scores = scores_of(x, y, ridge=1e-6)
    assert scores == {name: pytest.approx(1, abs=1e-5) for name in scores}


def test_noise_is_linear_in_sample_only() -> None:
    x = normal(8, 20, WIDTH)
    scores = scores_of(x, x + normal(8, 20, WIDTH, seed=1))
    assert scores["linearity_delta"] > 0.1, "24 dimensions fit some of 152 tokens of noise"
    assert scores["linearity_delta_held_out"] < 0


def test_a_residual_stream_hides_a_block_that_is_not_linear() -> None:
    x = normal(8, 200, WIDTH)
    scores = scores_of(x, x + 0.1 * (x.square() - 1))
    assert scores["linearity"] > 0.97
    assert scores["linearity_delta"] < 0.1


def test_first_massive_and_bos_tokens_do_not_count() -> None:
    x, y = normal(8, 60, WIDTH), normal(8, 60, WIDTH, seed=1)
    expected = scores_of(x[:, 1:].repeat(1, 1, 1), y[:, 1:])
    x, y = x.clone(), y.clone()
    plain = scores_of(x, y)
    x[:, 0], y[:, 0] = 1e4, -1e4
    assert scores_of(x, y) == pytest.approx(plain)
    x[:, 30] *= 1e4
    with_massive = scores_of(x, y)
    x[:, 30], y[:, 30] = 1e6, 1e6
    assert scores_of(x, y) == pytest.approx(with_massive)
    assert expected != plain, "the first of the shorter rows is another token"

    ids = torch.ones(8, 60, dtype=torch.long)
    ids[:, 30] = 256  # the tiny model's BOS
    accumulator = Linearity().begin(
        tiny_hybrid(LAYER_SPECS["full"]), torch.zeros(8, 60, dtype=torch.long)
    )
    bland = x.clone(), y.clone()
    bland[0][:, 30], bland[1][:, 30] = 0.1, -0.1
    accumulator.visit(Visit(0, None, None, ids, 0, *bland))
    assert scores_in(accumulator) == pytest.approx(with_massive)


def test_all_tokens_count_as_in_the_paper_where_asked_for() -> None:
    x, y = normal(8, 60, WIDTH), normal(8, 60, WIDTH, seed=1)
    x[:, 20] *= 50  # massive, and passed on as they are
    y[:, 20] = x[:, 20]
    linearity, delta = shares(*(part.flatten(0, 1).double().numpy() for part in (x, y)))
    scores = scores_of(x, y, massive=None)
    assert scores["linearity"] == pytest.approx(linearity, abs=1e-4)
    assert scores["linearity_delta"] == pytest.approx(delta, abs=1e-4)
    assert scores["linearity"] > 0.9 > 0.5 > scores_of(x, y)["linearity"]


def test_a_channel_that_never_varies_is_left_out() -> None:
    x = normal(8, 60, WIDTH)
    x[..., 3] = 7.0
    y = x @ normal(WIDTH, WIDTH, seed=1)
    assert scores_of(x, y)["linearity_delta"] == pytest.approx(1, abs=1e-5)


def test_inputs_that_lack_directions_fit_as_by_least_squares() -> None:
    # eight different tokens alone, as at the first block on a small alphabet
    few = normal(8, WIDTH)
    x = few[torch.randint(0, 8, (8, 60), generator=torch.Generator().manual_seed(0))]
    y = x + normal(8, 60, WIDTH, seed=1)
    _, delta = shares(*(part[:, 1:].flatten(0, 1).double().numpy() for part in (x, y)))
    assert scores_of(x, y)["linearity_delta"] == pytest.approx(delta, abs=1e-4)


def test_batches_of_rows_do_not_matter() -> None:
    model = tiny_hybrid(LAYER_SPECS["full"])
    x, y = normal(8, 60, WIDTH), normal(8, 60, WIDTH, seed=1)
    rows = torch.zeros(8, 60, dtype=torch.long)
    apart = Linearity().begin(model, rows)
    for row in range(8):
        apart.visit(visit_of(x[row : row + 1], y[row : row + 1], row))
    assert scores_in(apart) == pytest.approx(scores_of(x, y), abs=1e-6)


def test_a_large_common_offset_costs_no_precision() -> None:
    x = normal(1, 400, WIDTH)[0]
    e = normal(400, WIDTH, seed=1)
    weight = torch.ones(400, 1)
    plain, offset = Moments.empty(WIDTH, x.mean(0)), Moments.empty(WIDTH, x.mean(0) + 100)
    plain.add(x, e, weight)
    offset.add(x + 100, e, weight)
    near, far = plain.centred(), offset.centred()
    torch.testing.assert_close(far.xx, near.xx, rtol=1e-4, atol=1e-2)
    assert far.least_error().item() == pytest.approx(near.least_error().item(), rel=1e-5)


def test_states_that_are_not_finite_are_no_score() -> None:
    x = normal(8, 60, WIDTH)
    x[0, 7, 3] = torch.nan
    moments = Moments.empty(WIDTH, torch.zeros(WIDTH))
    moments.add(x.flatten(0, 1), x.flatten(0, 1), torch.ones(480, 1))
    with pytest.raises(StepError, match="not finite"):
        moments.centred().least_error()


@pytest.mark.parametrize(("rows", "tokens"), [(3, 500), (4, 24)])
def test_too_few_rows_or_tokens_are_refused(rows: int, tokens: int) -> None:
    with pytest.raises(InputError, match="linearity"):
        SharedPass([Linearity()], tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(rows, tokens))
