"""The step: base and candidate (and control) measured in one run, on the same items."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from kernels.choice import implementations_run
from tasks.context import Context
from tasks.contracts import Arm, CheckpointRef, EvalReport, ModelRef, TextRef
from tasks.evaluate.arms import ArmModel, Arms
from tasks.evaluate.base import Metric
from tasks.evaluate.metrics import build_metrics, measure_metrics, needed_texts
from tasks.evaluate.texts import Texts
from tasks.measure.models import load_base, load_checkpoint, load_tokenizer
from tasks.progress import progress
from tasks.recipe import EvaluateOptions


def evaluate_models(
    base: ModelRef,
    candidate: CheckpointRef,
    control: CheckpointRef | None,
    texts: Mapping[str, TextRef],
    options: EvaluateOptions,
    ctx: Context,
) -> EvalReport:
    """Measure every metric of the recipe on every arm.

    Finished passes and metrics stay in ``ctx.workdir``, so that a killed evaluation goes on there.
    A figure that is not finite is reported without a value, with the reason.

    Args:
        control: the base fine-tuned like the candidate but not converted; optional.
        texts: at least those that the metrics name.

    Raises:
        InputError: a metric, option or text that does not exist, or a text that is too short.
    """
    started = time.perf_counter()
    metrics = build_metrics(options.metrics, texts)
    models: dict[Arm, ArmModel] = {
        "base": ArmModel(
            base.sha256, lambda: load_base(ctx.store.open_tree(base.sha256), ctx.device)
        ),
        "candidate": _checkpoint(candidate, ctx),
    }
    if control:
        models["control"] = _checkpoint(control, ctx)
    with progress() as bar, implementations_run() as ran:
        arms = Arms(
            models,
            open_texts(base, texts, metrics, ctx),
            metrics,
            device=ctx.device,
            seed=ctx.seed,
            workdir=ctx.workdir / "arms",
            bar=bar,
        )
        measurements = measure_metrics(metrics, arms, ctx.workdir / "metrics", "evaluate", ctx.log)
    return EvalReport(
        base_sha256=base.sha256,
        candidate_sha256=candidate.sha256,
        control_sha256=control.sha256 if control else None,
        device=ctx.device,
        kernels={operator: tuple(sorted(names)) for operator, names in sorted(ran.items())},
        measurements=measurements,
        seconds=time.perf_counter() - started,
    )


def open_texts(
    base: ModelRef, texts: Mapping[str, TextRef], metrics: Iterable[Metric], ctx: Context
) -> Texts:
    """The texts that the metrics need, out of the store, with the base's tokenizer."""
    return Texts(
        {name: ctx.store.open_tree(texts[name].sha256) for name in needed_texts(metrics)},
        lambda: load_tokenizer(ctx.store.open_tree(base.sha256)),
    )


def _checkpoint(ref: CheckpointRef, ctx: Context) -> ArmModel:
    return ArmModel(
        ref.sha256, lambda: load_checkpoint(ctx.store.open_tree(ref.sha256), ctx.device)
    )
