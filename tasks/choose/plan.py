"""Build the problem from profile, options and base config; build the plan from a selector."""

from collections.abc import Sequence
from typing import Any

from layerwright.tasks.choose.base import KEEP, Candidate, LayerOption, Problem, RunOption, Selector
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.models.parameters import ParameterCounts
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.strategies.base import LayerSpec, Strategy


def choose_plan(problem: Problem, selector: Selector) -> ConversionPlan:
    """The plan of a selector; InputError if a score is missing or no plan meets the limits."""
    costs, times = problem.costs, problem.times
    return ConversionPlan(
        model_sha256=problem.profile.model_sha256,
        layers=len(problem.layers),
        context_tokens=problem.context_tokens,
        selector=selector.name,
        items=selector.select(problem),
        costs_sha256=costs.sha256 if costs and times else None,
        base_time=times.of_model(costs.base_specs) if costs and times else None,
        outside_time=times.outside.time if times else None,
    )


def problem_of(
    profile: ModelProfile,
    options: ChooseOptions,
    config: HybridConfig,
    seed: int = 0,
    table: CostTable | None = None,
) -> Problem:
    """The selector's problem, with the cost of each strategy at each layer.

    ``config`` is the base's, as a hybrid. InputError if every strategy is `keep`, or a strategy
    needs a score that the profile lacks.
    """
    base_specs: list[LayerSpec] = config.layer_specs or []
    counts, width = ParameterCounts(config), profile.geometry.element_bytes
    tokens = options.context_tokens
    times = table.at(tokens) if table else None

    def costs(strategy: Strategy, specs: Sequence[LayerSpec], start: int) -> dict[str, Any]:
        layers = range(start, start + len(specs))
        kv_bytes = (strategy.kv_bytes(config, tokens, element_bytes=width, layer=i) for i in layers)
        return {
            "strategy": strategy,
            "kv_bytes": sum(kv_bytes),
            "parameters": sum(map(counts.layer, layers, specs)),
            "time": times.of_layers(specs) if times else None,
        }

    def candidate(strategy: Strategy) -> Candidate:
        per_layer = [strategy.resolved(layer.scores) for layer in profile.layers]

        def of(start: int, stop: int) -> dict[str, Any]:
            specs = per_layer[start].layer_specs(base_specs[start:stop])
            return costs(per_layer[start], specs, start)

        runs = [
            (start, start + damage.layers)
            for start, layer in enumerate(profile.layers)
            for damage in layer.damage
            if damage.strategy == strategy.spec and damage.layers > 1
        ]
        further = None
        if strategy.joins:
            spec = strategy.layer_specs([base_specs[0]] * 2)[1]
            further = LayerOption(**costs(strategy, [spec], 0))
        return Candidate(
            strategy=strategy,
            layers=tuple(LayerOption(**of(layer, layer + 1)) for layer in range(len(per_layer))),
            runs=tuple(RunOption(start=a, stop=b, **of(a, b)) for a, b in runs),
            further=further,
        )

    candidates = tuple(candidate(s) for s in options.strategies if s.name != KEEP)
    if not candidates:
        raise InputError(
            "the recipe has no strategy that converts a layer",
            where="choose.strategies",
            expected=f"at least one strategy other than {KEEP}",
        )
    return Problem(
        profile=profile,
        candidates=candidates,
        context_tokens=tokens,
        seed=seed,
        layer_parameters=tuple(counts.layer(i, spec) for i, spec in enumerate(base_specs)),
        other_parameters=counts.others(),
        costs=table,
    )
