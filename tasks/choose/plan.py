"""Profile and options -> plan."""

from __future__ import annotations

from tasks.choose.base import KEEP, Candidate, Problem, Selector
from tasks.contracts import ConversionPlan, ModelProfile, Spec
from tasks.errors import InputError
from tasks.hybrid.configuration import HybridConfig
from tasks.recipe import ChooseOptions
from tasks.registry import build
from tasks.strategies.base import Strategy


def choose_plan(profile: ModelProfile, options: ChooseOptions, ctx_seed: int = 0) -> ConversionPlan:
    """The plan that the recipe's selector makes of a profile. Pure.

    Args:
        ctx_seed: for selectors that draw; the rules of today do not.

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
    config = _cache_geometry(profile)
    found = tuple(
        Candidate(spec=spec, kv_bytes=_kv_bytes(spec, index, config, options.context_tokens))
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


def _kv_bytes(spec: Spec, index: int, config: HybridConfig, context_tokens: int) -> int:
    strategy = build(Strategy, spec, where=f"choose.strategies.{index}")
    return strategy.kv_bytes(config, context_tokens, element_bytes=1)


def _cache_geometry(profile: ModelProfile) -> HybridConfig:
    """A config whose full layer takes the profile's KV bytes per token, as one head of bytes.

    The profile does not carry the model's config. Caches of keys and values grow with the number of
    elements alone, however they are split into heads.
    """
    return HybridConfig(
        num_hidden_layers=len(profile.layers),
        num_attention_heads=1,
        num_key_value_heads=1,
        head_dim=profile.kv_bytes_per_token // 2,
    )
