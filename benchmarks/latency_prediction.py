"""Prefill and decode time of mixed plans, predicted from the times of single layers and measured.

    python -m benchmarks.latency_prediction [--model FOLDER] [--tokens 1024] [--repeats 5]
        [--decode-tokens 32] [--write FILE.md]

First the cost table is made, as the step `measure_costs` makes it; then the base and the plans
below are timed in turns. A plan's prediction is the sum over its layers; its share is of the base's
time, as the budgets of `milp` take it, so that a machine that changed its pace between the two is
told from times that do not add up. Layers are drawn by seed. Nothing is fitted: maps are zero.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.profile_pass import fetched_model
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.costs import CostTable, LayerSpec
from layerwright.tasks.contracts.plan import PassTime, PlanItem
from layerwright.tasks.costs.table import cost_table
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import unfitted_copy
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.recipe.costs import CostOptions
from layerwright.tasks.store.local import LocalStore
from layerwright.tasks.strategies.drop_attention import DropAttention
from layerwright.tasks.strategies.gated_recurrence import GatedRecurrence
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.linear import Linear
from layerwright.tasks.strategies.local import Local
from layerwright.tasks.strategies.remove import Remove
from layerwright.tasks.strategies.specs import assignments_of, specs_of
from layerwright.tasks.strategies.streaming import Streaming
from layerwright.tasks.timing.speed import Speed, interleaved_speeds

STRATEGIES = {
    "streaming": Streaming(sinks=4, window=252),
    "local": Local(sinks=4, spans=256),
    "gated": GatedRecurrence(gate="gla"),
    "drop": DropAttention(),
    "linear": Linear(),
    "remove": Remove(),
}
# layers of each strategy, in thirtieths of the model's; the others are kept
MIXES: dict[str, dict[str, int]] = {
    "half streaming": {"streaming": 15},
    "streaming, local, drop": {"streaming": 8, "local": 7, "drop": 4},
    "streaming, linear": {"streaming": 12, "linear": 6},
    "local, drop, remove": {"local": 10, "drop": 5, "remove": 4},
    "gated, streaming": {"gated": 8, "streaming": 10},
    "gated, linear, remove": {"gated": 6, "linear": 5, "remove": 3},
    "drop, remove": {"drop": 8, "remove": 6},
    "local, linear, drop": {"local": 12, "linear": 4, "drop": 6},
    "all six": {"streaming": 5, "local": 5, "gated": 5, "drop": 3, "linear": 3, "remove": 2},
    "all six, nothing kept": {
        "streaming": 6, "local": 6, "gated": 5, "drop": 5, "linear": 4, "remove": 4,
    },
}  # fmt: skip
RUNS = {"one map for a run, streaming": ("linear", 8), "a run removed, streaming": ("remove", 8)}


PARTS = {"prefill": "prefill_seconds", "decode": "decode_seconds_per_token"}


@dataclass(frozen=True)
class Outcome:
    """One plan, or the base itself: predicted and measured, beside the base."""

    name: str
    predicted: PassTime
    base_predicted: PassTime
    measured: Speed
    base_measured: Speed


def plans(layers: int) -> dict[str, list[PlanItem]]:
    """Every mix over layers drawn by seed; runs in the middle, half of the others streaming."""
    draw = random.Random(0)
    found = {}
    for name, mix in MIXES.items():
        order = draw.sample(range(layers), layers)
        named = [key for key, count in mix.items() for _ in range(count * layers // 30)]
        found[name] = _items(layers, dict(zip(order, named, strict=False)))
    for name, (strategy, length) in RUNS.items():
        start, stop = (layers - length) // 2, (layers + length) // 2
        around = {layer: "streaming" for layer in range(0, layers, 2)}
        run = PlanItem(start=start, stop=stop, strategy=strategy)
        items = _items(layers, around)
        found[name] = [*items[:start], run, *items[stop:]]
    return found


def _items(layers: int, named: dict[int, str]) -> list[PlanItem]:
    specs = [(STRATEGIES[named[i]] if i in named else Keep()).spec for i in range(layers)]
    return [
        PlanItem(start=i, stop=i + 1, strategy=spec.name, params=spec.options)
        for i, spec in enumerate(specs)
    ]


def outcomes(
    base: HybridForCausalLM, table: CostTable, options: CostOptions, tokens: int
) -> list[Outcome]:
    """Base and plans timed in turns, each beside its prediction."""
    costs = table.at(tokens)
    assert costs is not None
    specs: dict[str, Sequence[LayerSpec]] = {"base": table.base_specs}
    for name, items in plans(len(table.base_specs)).items():
        specs[name] = specs_of(assignments_of(items), table.base_specs)
    models = {name: unfitted_copy(base, layers) for name, layers in specs.items()}
    measured = interleaved_speeds(
        models,
        tokens,
        decode_tokens=options.decode_tokens,
        repeats=options.repeats,
        batch=options.batch,
    )
    whole = costs.of_model(table.base_specs)
    assert whole is not None
    found = []
    for name, layers in specs.items():
        predicted = costs.of_model(layers)
        assert predicted is not None, "the table has every strategy of the plans"
        found.append(Outcome(name, predicted, whole, measured[name], measured["base"]))
    return found


def errors(outcome: Outcome) -> dict[str, float]:
    """Relative errors of the predictions, of times and of shares of the base's."""
    found = {}
    for part, figure in PARTS.items():
        predicted, mine = getattr(outcome.predicted, figure), getattr(outcome.measured, figure)
        share = predicted / getattr(outcome.base_predicted, figure)
        found[part] = predicted / np.median(mine) - 1
        found[f"{part}, share"] = share / np.median(_shares(outcome, figure)) - 1
    return found


def _shares(outcome: Outcome, figure: str) -> np.ndarray:
    """Of the base's time, round by round."""
    mine, base = getattr(outcome.measured, figure), getattr(outcome.base_measured, figure)
    return np.array(mine) / np.array(base)


def table_of(found: list[Outcome]) -> list[str]:
    """All plans as Markdown: times and shares, predicted and measured."""
    columns = "plan | part | predicted, ms | measured, ms | error | predicted share"
    lines = [f"| {columns} | measured share | error |", "|---|---|---|---|---|---|---|---|"]
    for outcome in found:
        wrong = errors(outcome)
        for part, figure in PARTS.items():
            predicted = getattr(outcome.predicted, figure)
            share = predicted / getattr(outcome.base_predicted, figure)
            measured = 1e3 * np.array(getattr(outcome.measured, figure))
            cells = (
                outcome.name,
                part,
                f"{1e3 * predicted:.1f}",
                _spread(measured, ".1f"),
                f"{wrong[part]:+.1%}",
                f"{share:.3f}",
                _spread(_shares(outcome, figure), ".3f"),
                f"{wrong[f'{part}, share']:+.1%}",
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def _spread(samples: np.ndarray, form: str) -> str:
    low, median, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return f"{median:{form}} ({low:{form}} to {high:{form}})"


def report(found: list[Outcome], table: CostTable, tokens: int) -> str:
    """The dated result. The base's own error is the machine's change of pace between the two."""
    wrong = [errors(outcome) for outcome in found if outcome.name != "base"]
    absolute = {part: 100 * np.abs([one[part] for one in wrong]) for part in wrong[0]}
    costs = table.at(tokens)
    assert costs is not None
    conditions = ", ".join(f"{name} {value}" for name, value in table.timed_on.items())
    return "\n".join(
        [
            f"# {datetime.date.today()}: predicted and measured time of mixed plans",
            "",
            f"`python -m benchmarks.latency_prediction --tokens {tokens} --repeats {table.repeats} "
            f"--decode-tokens {table.decode_tokens}`.",
            f"Machine: {conditions}; Python {platform.python_version()}; {table.dtype}, batch 1.",
            f"Load average over the last minute at the end: {os.getloadavg()[0]:.1f}.",
            "",
            f"Absolute error over {len(wrong)} plans, percent. A share is of the base's time, as a",
            "budget takes it.",
            "",
            "| part | median (quartiles) | worst |",
            "|---|---|---|",
            *(f"| {part} | {_spread(v, '.1f')} | {v.max():.1f} |" for part, v in absolute.items()),
            "",
            "A model with every kind of layer in turn, timed with the table, prediction against",
            f"measurement: prefill {costs.adding_up.prefill - 1:+.1%}, "
            f"decode {costs.adding_up.decode - 1:+.1%}.",
            "",
            f"Medians with quartiles of {table.repeats} repeats; measured shares are of the base's",
            "time in the same round.",
            "",
            *table_of(found),
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a checkpoint folder; fetched if not given")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--decode-tokens", type=int, default=32)
    parser.add_argument(
        "--write", type=Path, help="where the dated result goes; stdout if left out"
    )
    given = parser.parse_args()
    base = load_base(given.model or fetched_model())
    options = CostOptions(
        context_tokens=(given.tokens,), decode_tokens=given.decode_tokens, repeats=given.repeats
    )
    with tempfile.TemporaryDirectory() as folder:
        context = Context(store=LocalStore(Path(folder) / "store"), workdir=Path(folder), log=_log)
        table = cost_table(base, "", tuple(STRATEGIES.values()), options, context)
    text = report(outcomes(base, table, options, given.tokens), table, given.tokens)
    if given.write:
        given.write.write_text(text)
    else:
        print(text)


def _log(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
