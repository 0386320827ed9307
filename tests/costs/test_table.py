"""The cost table: what is timed, how a model is taken apart, and what is predicted from it."""

from tiny import LAYER_SPECS, tiny_hybrid

from tasks.context import Context
from tasks.contracts import Spec
from tasks.costs.table import cost_table
from tasks.recipe import CostOptions
from tasks.store import LocalStore

STRATEGIES = (
    Spec(name="streaming", sinks=2, window=6),
    Spec(name="linear"),
    Spec(name="remove", patch=True),
    Spec(name="gated_recurrence", window=4, decay="statistics"),
    Spec(name="prefill_selection", full_layers=1, window=8),
)
OPTIONS = CostOptions(context_tokens=(16, 40), decode_tokens=2, repeats=3, batch=2)


def test_x(tmp_path):
    ctx = Context(store=LocalStore(tmp_path / "s"), workdir=tmp_path, log=print)
    t = cost_table(tiny_hybrid(LAYER_SPECS["full"]), "a" * 64, STRATEGIES, OPTIONS, ctx)
    print(t.model_dump_json(indent=1)[:3000])
