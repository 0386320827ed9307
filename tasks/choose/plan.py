"""Profile and options -> plan."""

from __future__ import annotations

from tasks.choose.base import KEEP, Candidate, LayerOption, Problem, Selector
from tasks.contracts import ConversionPlan, ModelProfile, Spec
from tasks.errors import InputError
from tasks.hybrid.configuration import FULL_LAYER, HybridConfig
from tasks.recipe import ChooseOptions
from tasks.registry import build
from tasks.strategies.base import Strategy


def choose_plan(profile: ModelProfile, options: ChooseOptions, ctx_seed: int = 0) -> ConversionPlan:
    """The plan that the recipe's selector makes of a profile. Pure.

    Args:
        ctx_seed: for selectors that draw.

    Raises:
        InputError: an unknown component or option, scores that the profile lacks, or limits that
            no plan meets.
    """
    selector = build(Selector, options.selector, where="choose.selector")
    problem = Problem(
        profile=profile,
        candidates=_candidates(profile, options),
        context_tokens=options.context_tokens,
        seed=ctx_seed,
    )
    return ConversionPlan(
        model_sha256=profile.model_sha256,
        layers=len(profile.layers),
        context_tokens=options.context_tokens,
        selector=options.selector.name,
        items=selector.select(problem),
    )


def _candidates(profile: ModelProfile, options: ChooseOptions) -> tuple[Candidate, ...]:
    """The recipe's strategies with their KV bytes; a layer may always be kept besides."""
    config = _cache_config(profile)
    found = tuple(
        _candidate(spec, f"choose.strategies.{index}", profile, config, options.context_tokens)
        for index, spec in enumerate(options.strategies)
        if spec.name != KEEP
    )
    if not found:
        raise InputError(
            "every strategy keeps the layer as it is",
            where="choose.strategies",
            expected=f"at least one strategy other than {KEEP}",
        )
    return found


def _candidate(
    spec: Spec, where: str, profile: ModelProfile, config: HybridConfig, context_tokens: int
) -> Candidate:
    strategy = build(Strategy, spec, where=where)
    layers = []
    for layer in profile.layers:
        own = strategy.resolved(layer.scores)
        resolved = spec if own is strategy else own.spec
        kv_bytes = own.kv_bytes(
            config,
            context_tokens,
            element_bytes=profile.geometry.element_bytes,
            layer=layer.layer,
        )
        layers.append(LayerOption(spec=resolved, kv_bytes=kv_bytes))
    return Candidate(spec=spec, layers=tuple(layers))


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
