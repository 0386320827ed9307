"""The survey's measure_plans step: compare plans on the same tokens, without checkpoints."""

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cache, partial

from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm, Measurement, PlanComparison
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import Calibration, ModelRef, TextRef
from layerwright.tasks.evaluate.arms import ArmModel, Arms, kept_tokens
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.models import open_texts, states_of
from layerwright.tasks.evaluate.suite import measure_metrics, needed_passes, presentation_of
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.loading import base_config
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.batches import calibration_rows
from layerwright.tasks.passes.fitting import converted_copy
from layerwright.tasks.progress import progress
from layerwright.tasks.strategies.keep import Keep
from layerwright.tasks.strategies.specs import Assignment, assignments_of, specs_of


def measure_plans(
    base: ModelRef,
    plans: Mapping[str, ConversionPlan],
    texts: Mapping[str, TextRef],
    metrics: Sequence[Metric],
    calibration: Calibration,
    ctx: Context,
) -> PlanComparison:
    """Measure each plan's model, converted in memory, without healing.

    The base is loaded and run once for all plans. Equal plans are measured once, and a plan that
    keeps every layer uses the base's results. The facts of all recall prompts stay out of the
    widest window of any plan, so that all plans get the same prompts. Finished results are saved in
    ``ctx.workdir``.

    Raises:
        InputError: a strategy or an option of a plan is unknown, a text is too short, or a strategy
            cannot be fitted on the layers that a plan assigns to it.
    """
    started = time.perf_counter()
    assigned = {name: assignments_of(plan.items) for name, plan in plans.items()}
    base_folder = ctx.store.open_tree(base.sha256)
    base_specs = base_config(base_folder).layer_specs or []
    widest = max(kept_tokens(specs_of(parts, base_specs)) for parts in assigned.values())
    keep = states_of(ctx)
    rows = cache(partial(calibration_rows, calibration, ctx.store, base_folder))

    stack = ExitStack()

    @cache
    def loaded() -> HybridForCausalLM:
        streamed = load_streamed(base_folder, ctx.device, resident_bytes=ctx.memory_bytes)
        return stack.enter_context(streamed).model

    def candidate(parts: Sequence[Assignment]) -> ArmModel:
        key = plan_key(base.sha256, parts, calibration)
        return ArmModel(key, lambda: converted_copy(loaded(), parts, rows, keep))

    opened, passes = open_texts(base, texts, metrics, ctx), needed_passes(metrics)
    base_model, measured = ArmModel(base.sha256, loaded), dict[str, tuple[Measurement, ...]]()
    with stack, progress() as bar:
        for name, parts in bar.track(assigned.items(), description="survey"):
            plan = candidate(parts)
            models: dict[Arm, ArmModel] = {"base": base_model, "candidate": plan}
            arms = Arms(models, opened, passes, ctx, bar, keep=keep, keep_out_tokens=widest)
            folder = ctx.workdir / "plans" / plan.key
            figures = measure_metrics(metrics, arms, folder, name, ctx.log)
            measured[name] = tuple(figure.measurement for figure in figures)
    return PlanComparison(
        base_sha256=base.sha256,
        device=ctx.device,
        plans=measured,
        presentation=presentation_of(metrics),
        seconds=time.perf_counter() - started,
    )


def plan_key(base_sha256: str, assignments: Sequence[Assignment], calibration: Calibration) -> str:
    """Identity of a converted base; the base's own digest if the plan keeps every layer."""
    converted = [
        [start, stop, strategy.name, strategy.model_dump(mode="json")]
        for start, stop, strategy in assignments
        if not isinstance(strategy, Keep)
    ]
    if not converted:
        return base_sha256
    fitted_on = [calibration] if any(part.strategy.fits for part in assignments) else []
    return identity([base_sha256, converted, *fitted_on])
