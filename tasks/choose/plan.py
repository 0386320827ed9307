"""Build the problem from profile, options and base config; build the plan from a selector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerwright.tasks.choose.base import KEEP, Candidate, LayerOption, Problem, RunOption, Selector
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import HybridConfig
from layerwright.tasks.models.parameters import ParameterCounts
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.strategies.base import LayerSpec, Strategy


def choose_plan(problem: Problem, selector: Selector) -> ConversionPlan:
    """Return the plan of a selector. Pure, except for the problem's trial.

    Raises:
        InputError: the profile lacks a score, or no plan meets the limits.
    """
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
    """Compute the cost of each strategy at each layer, and return the selector's problem.

    Args:
        config: the base's config, as a hybrid.
        seed: for selectors that draw at random.
        table: measured times, if there are any.

    Raises:
        InputError: every strategy is `keep`, or a strategy needs a score that the profile lacks.
    """
    costs = _Costs(profile, options.context_tokens, config, table)
    candidates = tuple(
        costs.candidate(strategy) for strategy in options.strategies if strategy.name != KEEP
    )
    if not candidates:
        raise InputError(
            "the recipe has no strategy that converts a layer",
            where="choose.strategies",
            expected=f"at least one strategy other than {KEEP}",
        )
    return Problem(
        profile=profile,
        candidates=candidates,
        context_tokens=options.context_tokens,
        seed=seed,
        layer_parameters=costs.base_parameters(),
        other_parameters=costs.counts.others(),
        costs=table,
    )


class _Costs:
    """KV bytes, parameters and time of converted layers."""

    def __init__(
        self,
        profile: ModelProfile,
        context_tokens: int,
        config: HybridConfig,
        table: CostTable | None,
    ) -> None:
        self.profile, self.context_tokens, self.config = profile, context_tokens, config
        self.base_specs: list[LayerSpec] = config.layer_specs or []
        self.counts = ParameterCounts(config)
        self.times = table.at(context_tokens) if table else None

    def base_parameters(self) -> tuple[int, ...]:
        return tuple(self.counts.layer(i, spec) for i, spec in enumerate(self.base_specs))

    def candidate(self, strategy: Strategy) -> Candidate:
        per_layer = [strategy.resolved(layer.scores) for layer in self.profile.layers]
        return Candidate(
            strategy=strategy,
            layers=tuple(
                LayerOption(**self._costs(resolved, layer, layer + 1))
                for layer, resolved in enumerate(per_layer)
            ),
            runs=tuple(
                RunOption(start=start, stop=stop, **self._costs(per_layer[start], start, stop))
                for start, stop in self._measured_runs(strategy)
            ),
            further=self._further(strategy) if strategy.joins else None,
        )

    def _further(self, strategy: Strategy) -> LayerOption:
        """The option of a further layer in a run that the strategy joins."""
        _, further = strategy.layer_specs([self.base_specs[0]] * 2)
        return LayerOption(
            strategy=strategy,
            kv_bytes=self._kv_bytes(strategy, 0),
            parameters=self.counts.layer(0, further),
            time=self._time([further]),
        )

    def _measured_runs(self, strategy: Strategy) -> list[tuple[int, int]]:
        spec = strategy.spec
        return [
            (layer.layer, layer.layer + damage.layers)
            for layer in self.profile.layers
            for damage in layer.damage
            if damage.strategy == spec and damage.layers > 1
        ]

    def _costs(self, strategy: Strategy, start: int, stop: int) -> dict[str, Any]:
        specs = strategy.layer_specs(self.base_specs[start:stop])
        return {
            "strategy": strategy,
            "kv_bytes": sum(self._kv_bytes(strategy, layer) for layer in range(start, stop)),
            "parameters": sum(self.counts.layer(i, spec) for i, spec in enumerate(specs, start)),
            "time": self._time(specs),
        }

    def _kv_bytes(self, strategy: Strategy, layer: int) -> int:
        width = self.profile.geometry.element_bytes
        return strategy.kv_bytes(self.config, self.context_tokens, element_bytes=width, layer=layer)

    def _time(self, specs: Sequence[LayerSpec]) -> PassTime | None:
        return self.times.of_layers(specs) if self.times else None
