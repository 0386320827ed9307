"""The evaluate step: measure base, candidate, champion and control on the same items."""

import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from functools import partial

from layerwright.kernels.choice import implementations_run
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.evaluation import Arm, Champion, EvalReport
from layerwright.tasks.contracts.items import write_items
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef, TextRef
from layerwright.tasks.errors import InputError
from layerwright.tasks.evaluate import suite
from layerwright.tasks.evaluate.arms import ArmModel, Arms
from layerwright.tasks.evaluate.base import Metric
from layerwright.tasks.evaluate.passes import Texts
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import share_outside_layers
from layerwright.tasks.models.loading import load_tokenizer
from layerwright.tasks.offload.offload import load_streamed
from layerwright.tasks.passes.states import Keep, Spill
from layerwright.tasks.progress import progress
from layerwright.tasks.recipe.evaluate import EvaluateOptions


def evaluate_models(
    base: ModelRef,
    candidate: CheckpointRef,
    control: CheckpointRef | None,
    champion: Champion | None,
    texts: Mapping[str, TextRef],
    options: EvaluateOptions,
    ctx: Context,
) -> EvalReport:
    """Measure every metric of the recipe on every arm; a killed evaluation resumes.

    Args:
        control: the base, finetuned like the candidate but not converted.

    Raises:
        InputError: a text is too short.
    """
    started = time.perf_counter()
    metrics = options.metrics
    compared: dict[Arm, str] = {"base": base.sha256, "candidate": candidate.sha256}
    if champion and champion.checkpoint:
        compared["champion"] = champion.checkpoint.sha256
    if control:
        compared["control"] = control.sha256
    # all models stay loaded, so they share the memory limit
    share = ctx.memory_bytes and ctx.memory_bytes // len(compared)
    with ExitStack() as stack, progress() as bar, implementations_run() as ran:
        loaded: list[HybridForCausalLM] = []

        def load(sha256: str) -> HybridForCausalLM:
            folder = ctx.store.open_tree(sha256)
            streamed = load_streamed(folder, ctx.device, resident_bytes=share)
            model = stack.enter_context(streamed).model
            if loaded:
                share_outside_layers(model, loaded[0])
            loaded.append(model)
            return model

        models = {arm: ArmModel(sha256, partial(load, sha256)) for arm, sha256 in compared.items()}
        opened, passes = open_texts(base, texts, metrics, ctx), suite.needed_passes(metrics)
        arms = Arms(models, opened, passes, ctx, bar, keep=states_of(ctx))
        folder = ctx.workdir / "metrics"
        figures = suite.measure_metrics(metrics, arms, folder, "evaluate", ctx.log)
    items = ctx.folder("items")
    write_items(items, (item for figure in figures for item in figure.items))
    return EvalReport(
        base_sha256=base.sha256,
        candidate_sha256=candidate.sha256,
        champion=champion,
        control_sha256=control.sha256 if control else None,
        device=ctx.device,
        kernels={operator: tuple(sorted(names)) for operator, names in sorted(ran.items())},
        measurements=tuple(figure.measurement for figure in figures),
        presentation=suite.presentation_of(metrics),
        items=ctx.store.put_tree(items),
        seconds=time.perf_counter() - started,
    )


def open_texts(
    base: ModelRef, texts: Mapping[str, TextRef], metrics: Iterable[Metric], ctx: Context
) -> Texts:
    """Open the texts that the metrics need, with the base's tokenizer.

    Raises:
        InputError: a metric names a text that is not given.
    """
    needed = suite.needed_texts(metrics)
    if unknown := [name for name in needed if name not in texts]:
        raise InputError(
            f"metrics name texts that are not given: {', '.join(unknown)}",
            expected=f"some of {', '.join(texts)}",
        )
    return Texts(
        {name: ctx.store.open_tree(texts[name].sha256) for name in needed},
        lambda: load_tokenizer(ctx.store.open_tree(base.sha256)),
    )


def states_of(ctx: Context) -> Keep:
    """Stores rows between layers: in files if the step has a memory limit, else in memory."""
    return Spill(ctx.workdir / "states") if ctx.memory_bytes else tuple
