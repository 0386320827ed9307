"""The block-by-block runner shows every block what it really saw, and keeps nothing."""

import weakref

import pytest
import torch
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid, tiny_llama, tiny_tokens

from tasks.measure.blocks import Visit, run_blocks


class Recorder:
    def __init__(self) -> None:
        self.visits: list[Visit] = []

    def visit(self, visit: Visit) -> None:
        self.visits.append(visit)


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 8])
def test_states_are_the_original_models_hidden_states(batch_rows: int) -> None:
    rows = tiny_tokens(5, 24)
    seen, done = Recorder(), []
    model = tiny_hybrid(LAYER_SPECS["full"])
    run_blocks(model, rows, [seen], batch_rows=batch_rows, after_batch=done.append)
    with torch.inference_mode():
        hidden = tiny_llama()(rows, output_hidden_states=True).hidden_states
    assert sum(done) == 5
    for visit in seen.visits:
        some = slice(visit.first_row, visit.first_row + batch_rows)
        assert torch.equal(visit.ids, rows[some])
        assert visit.block is model.model.layers[visit.layer]
        torch.testing.assert_close(visit.x_in, hidden[visit.layer][some], rtol=1e-5, atol=1e-5)
        if visit.layer < LAYERS - 1:  # after the last one, Transformers shows the normed state
            after = hidden[visit.layer + 1][some]
            torch.testing.assert_close(visit.x_out, after, rtol=1e-5, atol=1e-5)
    assert [v.layer for v in seen.visits] == list(range(LAYERS)) * len(done)


def test_only_one_blocks_states_live_at_a_time() -> None:
    class Watcher:
        def __init__(self) -> None:
            self.states: list[weakref.ref] = []
            self.alive: list[int] = []

        def visit(self, visit: Visit) -> None:
            self.states += [weakref.ref(visit.x_out)]
            self.alive.append(sum(state() is not None for state in self.states))

    for rows in (2, 9):
        watcher = Watcher()
        run_blocks(tiny_hybrid(LAYER_SPECS["full"]), tiny_tokens(rows, 16), [watcher])
        assert max(watcher.alive) <= 2, "a block's input and output, whatever the number of rows"
