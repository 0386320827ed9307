"""The survey's step: plans measured side by side on the same tokens, without a checkpoint."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache, partial
from itertools import chain

from torch import nn

from tasks.context import Context
from tasks.contracts import (
    ConversionPlan,
    Measurement,
    ModelRef,
    PlanComparison,
    Spec,
    TextRef,
    identity,
)
from tasks.evaluate.arms import ArmModel, Arms, kept_tokens
from tasks.evaluate.metrics import build_metrics, measure_metrics
from tasks.evaluate.models import open_texts
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.models import base_config, load_base
from tasks.progress import progress
from tasks.strategies.base import Strategy
from tasks.strategies.keep import Keep
from tasks.strategies.specs import strategies_of


def measure_plans(
    base: ModelRef,
    plans: Mapping[str, ConversionPlan],
    texts: Mapping[str, TextRef],
    metrics: Sequence[Spec],
    ctx: Context,
) -> PlanComparison:
    """Measure what each plan does to the base before any healing.

    The base is loaded and run once for all plans; equal plans are measured once, and one that keeps
    every layer costs no forward pass of its own. All recall prompts keep out of the widest window
    of any plan, so that they are the same for all. Finished work stays in ``ctx.workdir``.

    Raises:
        InputError: a metric, strategy, option or text that does not exist, or a text too short.
    """
    started = time.perf_counter()
    chosen = build_metrics(metrics, texts, where="survey.metrics")
    strategies = {name: strategies_of(plan) for name, plan in plans.items()}
    base_folder = ctx.store.open_tree(base.sha256)
    base_specs = base_config(base_folder).layer_specs or []
    widest = max(
        kept_tokens(s.layer_spec(spec) for s, spec in zip(per_layer, base_specs, strict=True))
        for per_layer in strategies.values()
    )
    loaded = cache(partial(load_base, base_folder, ctx.device))

    def candidate(per_layer: Sequence[Strategy]) -> ArmModel:
        key = plan_key(base.sha256, per_layer)
        return ArmModel(key, lambda: converted_copy(loaded(), per_layer))

    opened = open_texts(base, texts, chosen, ctx)
    measured: dict[str, tuple[Measurement, ...]] = {}
    with progress() as bar:
        for name, per_layer in bar.track(strategies.items(), description="survey"):
            plan = candidate(per_layer)
            arms = Arms(
                {"base": ArmModel(base.sha256, loaded), "candidate": plan},
                opened,
                chosen,
                keep_out_tokens=widest,
                device=ctx.device,
                seed=ctx.seed,
                workdir=ctx.workdir / "arms",
                bar=bar,
            )
            folder = ctx.workdir / "plans" / plan.key
            measured[name] = measure_metrics(chosen, arms, folder, name, ctx.log)
    return PlanComparison(
        base_sha256=base.sha256,
        device=ctx.device,
        plans=measured,
        seconds=time.perf_counter() - started,
    )


def plan_key(base_sha256: str, strategies: Sequence[Strategy]) -> str:
    """Identity of a converted base: that of the base itself where every layer is kept."""
    converted = [
        [layer, strategy.name, strategy.model_dump(mode="json")]
        for layer, strategy in enumerate(strategies)
        if not isinstance(strategy, Keep)
    ]
    return identity([base_sha256, converted]) if converted else base_sha256


def converted_copy(base: HybridForCausalLM, strategies: Sequence[Strategy]) -> HybridForCausalLM:
    """The base with every layer as its strategy says; tensors that stay the same are shared.

    Args:
        base: left as it is.
        strategies: one per layer.
    """
    shared = {id(tensor): tensor for tensor in chain(base.parameters(), base.buffers())}
    model = deepcopy(base, shared)
    specs = list(model.config.layer_specs or ())
    for layer, (strategy, spec) in enumerate(zip(strategies, specs, strict=True)):
        if strategy.layer_spec(spec) != spec:
            model.set_layer_spec(layer, strategy.layer_spec(spec))
        block = model.model.layers[layer]
        for name, weight in list(block.named_parameters()):
            changed = strategy.transform(name, weight.detach(), layer)
            if changed.data_ptr() != weight.data_ptr():
                module, _, leaf = name.rpartition(".")
                setattr(block.get_submodule(module), leaf, nn.Parameter(changed, False))
    return model
