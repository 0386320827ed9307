"""The cost table: which layers are timed, how a model is taken apart, what is predicted from it."""

from pathlib import Path

import pytest
from costs.tables import cost_table as made_up
from tiny import LAYER_SPECS, LAYERS, tiny_hybrid

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import PlanItem
from layerwright.tasks.costs import table as step
from layerwright.tasks.costs.kinds import kinds_of
from layerwright.tasks.costs.table import cost_table
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import unfitted_copy
from layerwright.tasks.recipe.costs import CostOptions
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.strategies.base import Strategy
from layerwright.tasks.strategies.drop_attention import DropAttention
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.linear import Linear
from layerwright.tasks.strategies.local import Local
from layerwright.tasks.strategies.prefill_selection import PrefillSelection
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.specs import assignments_of, specs_of
from layerwright.tasks.strategies.streaming import Streaming
from layerwright.tasks.timing.speed import Speed, prefill

STRATEGIES = (
    Streaming(sinks=2, window=6),
    Linear(),
    Remove(patch=True),
    DropAttention(),
    GatedRecurrence(window=4, decay="statistics"),
    PrefillSelection(full_layers=1, window=8),
)
OPTIONS = CostOptions(context_tokens=(16, 24), decode_tokens=2, repeats=3, batch=2)


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return Context(store=LocalStore(tmp_path / "store"), workdir=tmp_path)


def counted(model: HybridForCausalLM, tokens: int) -> tuple[float, float]:
    """What stands for time here: parameters, and the bytes of the cache after a real prefill."""
    cache, _ = prefill(model, tokens, 1)
    return float(sum(p.numel() for p in model.parameters())), float(cache.nbytes())


def count_instead(models, context_tokens: int, *, repeats: int, track, **_) -> dict[str, Speed]:
    found = {}
    for name, model in models.items():
        parameters, held = counted(model, context_tokens)
        counts = (parameters,) * repeats
        found[name] = Speed(counts, counts, (held,) * repeats, counts, peak_bytes=0)
    return found


def item(start: int, stop: int, strategy: Strategy) -> PlanItem:
    options = strategy.spec.options
    return PlanItem(start=start, stop=stop, strategy=strategy.name, params=options)


KEEP = Keep()
STREAM, MAP, REMOVE, DROP, GATED, _ = STRATEGIES


@pytest.mark.parametrize(
    "items",
    [
        [item(0, 4, KEEP)],
        [item(0, 1, KEEP), item(1, 2, STREAM), item(2, 3, DROP), item(3, 4, MAP)],
        [item(0, 1, STREAM), item(1, 4, MAP)],
        [item(0, 1, MAP), item(1, 2, MAP), item(2, 4, KEEP)],
        [item(0, 2, GATED), item(2, 4, REMOVE)],
    ],
    ids=["kept", "mixed", "one map for a run", "two maps", "a run removed"],
)
def test_what_adds_up_over_layers_is_predicted_exactly(items, ctx, monkeypatch) -> None:
    monkeypatch.setattr(step, "interleaved_speeds", count_instead)
    base = tiny_hybrid(LAYER_SPECS["full"])
    table = cost_table(base, "a" * 64, STRATEGIES, OPTIONS, ctx)
    specs = specs_of(assignments_of(items), table.base_specs)
    for tokens in OPTIONS.context_tokens:
        predicted = table.at(tokens).of_model(specs)
        parameters, held = counted(unfitted_copy(base, specs), tokens)
        assert predicted.prefill_seconds == parameters
        assert predicted.decode_seconds_per_token == held
        assert table.at(tokens).adding_up == (1.0, 1.0)
    assert table.at(17) is None
    assert table.at(16).of_model([*specs[:-1], {"mixer": {"kind": "unknown"}}]) is None


def test_a_table_is_measured_and_survives_a_kill(ctx, monkeypatch) -> None:
    told: list[str] = []
    ctx = Context(store=ctx.store, workdir=ctx.workdir, log=told.append)
    base = tiny_hybrid(LAYER_SPECS["full"])
    table = cost_table(base, "a" * 64, STRATEGIES, OPTIONS, ctx)
    for tokens in OPTIONS.context_tokens:
        costs = table.at(tokens)
        assert [layer.strategies for layer in costs.layers] == [
            ("keep",), ("streaming",), ("linear",), ("drop_attention",), ("gated_recurrence",),
            ("remove",),
        ]  # fmt: skip
        for time in (costs.outside, costs.mixed, *costs.layers):
            for spread in (time.prefill_seconds, time.decode_seconds_per_token):
                assert spread.low <= spread.median <= spread.high
        assert costs.of_layers([costs.layers[-1].spec]).prefill_seconds == 0
    assert "skipped prefill_selection" in told[0]
    assert set(table.timed_on) == {"device", "threads", "torch", "transformers"}
    assert list(table.base_specs) == base.config.layer_specs, "the base is left as it is"

    def never(*_, **__):
        raise AssertionError("a finished length was timed again")

    monkeypatch.setattr(step, "interleaved_speeds", never)
    again = cost_table(base, "a" * 64, STRATEGIES, OPTIONS, ctx)
    assert again.contexts == table.contexts


def test_layers_that_differ_in_the_base_are_kinds_of_their_own() -> None:
    base = tiny_hybrid(LAYER_SPECS["streaming"], layers=(0, 2))
    kinds = kinds_of(base.config.layer_specs, (DROP, STREAM), print)
    assert [(kind.spec["mixer"]["kind"], kind.strategies) for kind in kinds] == [
        ("streaming", ("keep", "streaming")),
        ("full", ("keep",)),
        ("none", ("drop_attention",)),
    ]


def test_a_strategy_must_be_resolved() -> None:
    with pytest.raises(InputError, match="spans"):
        kinds_of([LAYER_SPECS["full"]] * LAYERS, (Local(spans="layer"),), print)


def test_the_digest_is_of_what_was_measured() -> None:
    table = made_up(4, 1024)
    assert CostTable.model_validate_json(table.model_dump_json()).sha256 == table.sha256
    assert table.model_copy(update={"seconds": 9.0}).sha256 == table.sha256
    assert table.model_copy(update={"batch": 2}).sha256 != table.sha256
    assert made_up(4, 1024, 2048).sha256 != table.sha256
