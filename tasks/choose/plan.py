"""Profile, options and the base's shape -> a problem; a problem and a selector -> a plan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from layerwright.tasks.choose.base import KEEP, Candidate, LayerOption, Problem, RunOption, Selector
from layerwright.tasks.components import build
from layerwright.tasks.contracts.base import Spec
from layerwright.tasks.contracts.costs import CostTable
from layerwright.tasks.contracts.plan import ConversionPlan, PassTime
from layerwright.tasks.contracts.profile import ModelProfile
from layerwright.tasks.errors import InputError
from layerwright.tasks.hybrid.configuration import HybridConfig, normalised_spec
from layerwright.tasks.models.parameters import ParameterCounts
from layerwright.tasks.recipe.choose import ChooseOptions
from layerwright.tasks.strategies.base import LayerSpec, Strategy


def choose_plan(problem: Problem, selector: Selector) -> ConversionPlan:
    """The plan that a selector makes. Pure, but for the problem's trial.

    Raises:
        InputError: scores that the profile lacks, or limits that no plan meets.
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
    """What a selector is given: the profile, and what each strategy would cost in each layer.

    Args:
        config: the base's, as a hybrid.
        seed: for selectors that draw.
        table: measured times, where there are any.

    Raises:
        InputError: an unknown strategy or option, or scores that one lacks.
    """
    costs = _Costs(profile, options.context_tokens, config, table)
    candidates = tuple(
        costs.candidate(spec, build(Strategy, spec, where=f"choose.strategies.{index}"))
        for index, spec in enumerate(options.strategies)
        if spec.name != KEEP
    )
    if not candidates:
        raise InputError(
            "every strategy keeps the layer as it is",
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
    """KV bytes, parameters and time of what layers become."""

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

    def candidate(self, spec: Spec, strategy: Strategy) -> Candidate:
        own = [strategy.resolved(layer.scores) for layer in self.profile.layers]
        # what a profile fills in makes a new strategy; else the recipe's own words stay
        specs = [spec if one is strategy else one.spec for one in own]
        return Candidate(
            spec=spec,
            layers=tuple(
                LayerOption(spec=specs[layer], **self._of(own[layer], layer, layer + 1))
                for layer in range(len(own))
            ),
            runs=tuple(
                RunOption(
                    spec=specs[start], start=start, stop=stop, **self._of(own[start], start, stop)
                )
                for start, stop in self._measured_runs(spec)
            ),
            further=self._further(spec, strategy) if strategy.joins else None,
        )

    def _further(self, spec: Spec, strategy: Strategy) -> LayerOption:
        """What a second layer adds to a run that becomes one thing."""
        _, further = strategy.layer_specs([self.base_specs[0]] * 2)
        return LayerOption(
            spec=spec,
            kv_bytes=self._kv_bytes(strategy, 0),
            parameters=self.counts.layer(0, further),
            time=self._time([further]),
        )

    def _measured_runs(self, spec: Spec) -> list[tuple[int, int]]:
        return [
            (layer.layer, layer.layer + damage.layers)
            for layer in self.profile.layers
            for damage in layer.damage
            if damage.strategy == spec and damage.layers > 1
        ]

    def _of(self, strategy: Strategy, start: int, stop: int) -> dict[str, Any]:
        specs = strategy.layer_specs(self.base_specs[start:stop])
        return {
            "kv_bytes": sum(self._kv_bytes(strategy, layer) for layer in range(start, stop)),
            "parameters": sum(self.counts.layer(i, spec) for i, spec in enumerate(specs, start)),
            "time": self._time(specs),
        }

    def _kv_bytes(self, strategy: Strategy, layer: int) -> int:
        width = self.profile.geometry.element_bytes
        return strategy.kv_bytes(self.config, self.context_tokens, element_bytes=width, layer=layer)

    def _time(self, specs: Sequence[LayerSpec]) -> PassTime | None:
        if self.times is None:
            return None
        return self.times.of_layers(normalised_spec(spec, 0) for spec in specs)
