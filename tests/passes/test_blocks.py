"""The block-by-block runner shows every block what it really saw, and keeps nothing."""

import weakref
from pathlib import Path

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama, tiny_tokens

from layerwright.tasks.passes.blocks import Visit, run_blocks
from layerwright.tasks.passes.states import Spill


class Recorder:
    def __init__(self) -> None:
        self.visits: list[Visit] = []

    def visit(self, visit: Visit) -> None:
        self.visits.append(visit)

    def record(self) -> dict[str, torch.Tensor]:
        return {"visits": torch.tensor(len(self.visits))}


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 8])
def test_states_are_the_original_models_hidden_states(batch_rows: int) -> None:
    rows = tiny_tokens(5, 24)
    seen, done = Recorder(), []
    model = tiny_hybrid(LAYER_SPECS["full"])
    found = run_blocks(model, rows, [lambda: seen], batch_rows=batch_rows, after=done.append)
    with torch.inference_mode():
        hidden = tiny_llama()(rows, output_hidden_states=True).hidden_states
    assert sum(done) == 5 * LAYERS
    batches = -(-5 // batch_rows)
    assert [r["visits"].item() for r in found[0]] == [batches * n for n in range(1, LAYERS + 1)]
    for visit in seen.visits:
        some = slice(visit.first_row, visit.first_row + batch_rows)
        assert torch.equal(visit.ids, rows[some])
        assert visit.block is model.model.layers[visit.layer]
        torch.testing.assert_close(visit.x_in, hidden[visit.layer][some], rtol=1e-5, atol=1e-5)
        if visit.layer < LAYERS - 1:  # after the last one, Transformers shows the normed state
            after = hidden[visit.layer + 1][some]
            torch.testing.assert_close(visit.x_out, after, rtol=1e-5, atol=1e-5)
    assert [v.layer for v in seen.visits] == [n for n in range(LAYERS) for _ in range(batches)]


def test_only_one_batch_of_spilled_states_lives_at_a_time(tmp_path: Path) -> None:
    class Watcher(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.states: list[weakref.ref] = []
            self.alive: list[int] = []

        def visit(self, visit: Visit) -> None:
            self.states += [weakref.ref(visit.x_out), weakref.ref(visit.x_in)]
            self.alive.append(sum(state() is not None for state in self.states))

    for rows in (2, 9):
        watcher, spill = Watcher(), Spill(tmp_path)
        model, ids = tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(rows, 16)
        run_blocks(model, ids, [lambda w=watcher: w], batch_rows=1, keep=spill)
        assert max(watcher.alive) <= 4, "two batches on both sides of a block, however many rows"
    assert list(tmp_path.iterdir()) == [], "what nobody holds is removed"
