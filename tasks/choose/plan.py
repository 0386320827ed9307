"""Profile and options -> plan."""

from __future__ import annotations

from tasks.choose.base import KEEP, Candidate, LayerOption, Problem, RunOption, Selector, Trial
from tasks.contracts import ConversionPlan, ModelProfile, Spec
from tasks.errors import InputError
from tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from tasks.measure.parameters import ParameterCounts
from tasks.recipe import ChooseOptions
from tasks.registry import build
from tasks.strategies.base import Strategy


def choose_plan(
    profile: ModelProfile,
    options: ChooseOptions,
    seed: int = 0,
    *,
    config: HybridConfig | None = None,
    trial: Trial | None = None,
) -> ConversionPlan:
    """The plan that the recipe's selector makes of a profile. Pure, but for the trial.

    Args:
        seed: for selectors that draw.
        config: the base's; without it parameters are not counted, only KV bytes.
        trial: for selectors that try plans on the model.

    Raises:
        InputError: an unknown component or option, scores that the profile lacks, or limits that
            no plan meets.
    """
    selector = build(Selector, options.selector, where="choose.selector")
    problem = problem_of(profile, options, seed, config=config, trial=trial)
    return ConversionPlan(
        model_sha256=profile.model_sha256,
        layers=len(profile.layers),
        context_tokens=options.context_tokens,
        selector=options.selector.name,
        items=selector.select(problem),
    )


def problem_of(
    profile: ModelProfile,
    options: ChooseOptions,
    seed: int = 0,
    *,
    config: HybridConfig | None = None,
    trial: Trial | None = None,
) -> Problem:
    """What the selector is given; the arguments are those of `choose_plan`."""
    counts = ParameterCounts(config) if config is not None else None
    specs = (config.layer_specs or []) if config is not None else []
    candidates = _Candidates(profile, options.context_tokens, config, counts).of(options.strategies)
    return Problem(
        profile=profile,
        candidates=candidates,
        context_tokens=options.context_tokens,
        seed=seed,
        layer_parameters=tuple(counts.layer(i, s) for i, s in enumerate(specs)) if counts else (),
        other_parameters=counts.others() if counts else 0,
        trial=trial,
    )


class _Candidates:
    def __init__(
        self,
        profile: ModelProfile,
        context_tokens: int,
        config: HybridConfig | None,
        counts: ParameterCounts | None,
    ) -> None:
        self.profile, self.context_tokens, self.counts = profile, context_tokens, counts
        self.config = config or _cache_config(profile)

    def of(self, specs: tuple[Spec, ...]) -> tuple[Candidate, ...]:
        """The recipe's strategies with their costs; a layer may always be kept besides."""
        found = tuple(
            self._candidate(spec, build(Strategy, spec, where=f"choose.strategies.{index}"))
            for index, spec in enumerate(specs)
            if spec.name != KEEP
        )
        if not found:
            raise InputError(
                "every strategy keeps the layer as it is",
                where="choose.strategies",
                expected=f"at least one strategy other than {KEEP}",
            )
        return found

    def _candidate(self, spec: Spec, strategy: Strategy) -> Candidate:
        own = [strategy.resolved(layer.scores) for layer in self.profile.layers]
        layers = tuple(self._option(spec, strategy, one, i, i + 1) for i, one in enumerate(own))
        runs = tuple(
            RunOption(
                start=layer.layer,
                stop=layer.layer + damage.layers,
                **self._option(
                    spec, strategy, own[layer.layer], layer.layer, layer.layer + damage.layers
                ).model_dump(exclude={"spec"}),
                spec=layers[layer.layer].spec,
            )
            for layer in self.profile.layers
            for damage in layer.damage
            if damage.strategy == spec and damage.layers > 1
        )
        return Candidate(spec=spec, layers=layers, runs=runs)

    def _option(
        self, spec: Spec, asked: Strategy, own: Strategy, start: int, stop: int
    ) -> LayerOption:
        base = (self.config.layer_specs or [])[start:stop]
        kv_bytes = sum(
            own.kv_bytes(
                self.config,
                self.context_tokens,
                element_bytes=self.profile.geometry.element_bytes,
                layer=layer,
            )
            for layer in range(start, stop)
        )
        parameters = 0
        if self.counts is not None:
            specs = enumerate(own.layer_specs(base), start)
            parameters = sum(self.counts.layer(layer, wanted) for layer, wanted in specs)
        resolved = spec if own is asked else own.spec
        return LayerOption(spec=resolved, kv_bytes=kv_bytes, parameters=parameters)


def _cache_config(profile: ModelProfile) -> HybridConfig:
    """A config whose caches are the base's: all that the prediction of KV bytes reads."""
    geometry = profile.geometry
    windows = geometry.window_tokens or [None] * len(profile.layers)
    sliding = [{"kind": "streaming", "sinks": 0, "window": (kept or 0) + 1} for kept in windows]
    return HybridConfig(
        num_hidden_layers=len(profile.layers),
        num_attention_heads=geometry.kv_heads,
        num_key_value_heads=geometry.kv_heads,
        head_dim=geometry.head_dim,
        layer_specs=[
            FULL_LAYER if kept is None else {**FULL_LAYER, "mixer": mixer}
            for kept, mixer in zip(windows, sliding, strict=True)
        ],
    )
