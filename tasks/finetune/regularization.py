"""Training before removal: what the doomed layers know moves elsewhere, then they can go."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from layerwright.tasks.components import build
from layerwright.tasks.context import Context
from layerwright.tasks.contracts.base import Spec, identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef, TextRef, TreeRef
from layerwright.tasks.contracts.training import RegularizationReport, RegularizationTrial
from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.adapters import give
from layerwright.tasks.finetune.healing import write_tree
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.objectives.base import Objective
from layerwright.tasks.finetune.precision import compute_dtype, emulation, loaded_dtype
from layerwright.tasks.finetune.rows import Rows, training_rows
from layerwright.tasks.finetune.snapshot import Snapshots
from layerwright.tasks.finetune.team import Team
from layerwright.tasks.finetune.training import MetricSink, Training, silent
from layerwright.tasks.finetune.validation import Validation
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import converted
from layerwright.tasks.models.loading import load_base, load_tokenizer, stored_dtype
from layerwright.tasks.recipe.finetune import HealingStage
from layerwright.tasks.recipe.regularize import RegularizeOptions
from layerwright.tasks.recipe.training import TrainingStage

REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}


def regularize_model(
    model: ModelRef,
    plan: ConversionPlan,
    text: TextRef,
    held_out: TextRef | None,
    options: RegularizeOptions,
    ctx: Context,
    *,
    sink: MetricSink = silent,
    team: Team | None = None,
) -> RegularizationReport:
    """Train a base so that the layers that a plan takes out do little (TRSP, arXiv 2505.18232).

    loss = next token + lambda * sum over doomed layers l of mean over tokens ||x_{l+1} - x_l|| / n,
    with n = sqrt(D) for the l2 norm and D for l1 (``objectives/layer_change.py``). This is the
    paper's stage 2; its norm is not divided, so that its lambda of 1e-3 at D = 4096 is 0.064 here.
    All layers are there still: the result is a base, from which the plan's conversion starts.

    Of several weights each is trained from the base for ``sweep_steps``, scored by the NLL per
    token of the validation rows with the doomed layers skipped, and the lowest is trained in full.
    The state lies in ``ctx.workdir``, and a later call goes on from it.

    Raises:
        InputError: the plan takes out no layer, or a text gives no row.
        StepError: the loss became not finite; the last training state is kept.
    """
    team = team or Team()
    layers = doomed_layers(plan, options.strategies)
    source = ctx.store.open_tree(model.sha256)
    tokenizer = load_tokenizer(source)
    rows, held_rows = training_rows(ctx.store, text, held_out, tokenizer, options)
    load = partial(
        load_base,
        source,
        device=team.loads_on(ctx.device),
        dtype=loaded_dtype(ctx.device, (options,)),
    )
    run = identity([model, plan, text, held_out, options, ctx.seed])
    training = Training(
        load_student=load,
        base=None,
        rows=rows,
        validation=None,
        snapshots=Snapshots(ctx.workdir, run, team),
        checkpoint_every=options.checkpoint_every,
        seed=ctx.seed,
        compute=partial(compute_dtype, ctx.device, stored_dtype(source)),
        team=team,
        log=ctx.log if team.first else lambda message: None,
        sink=sink,
        name="regularize",
    )
    if line := emulation(ctx.device, (options,)):
        ctx.log(f"regularize: {line}")
    before = skipped_nll(load(), layers, held_rows) if held_rows else None
    trials = _sweep(training, options, layers, held_rows, run)
    weight = min(trials, key=lambda trial: trial.nll).weight if trials else options.weights[0]
    if held_rows and options.validation:
        training = replace(training, validation=Validation(held_rows, options.validation))
    state = training.run([stage_of(options, layers, weight)])
    after = _trained_nll(training, layers, held_rows)
    stage = state.stages[-1]
    report = {
        "layers": layers,
        "weight": weight,
        "steps": state.step,
        "tokens": state.tokens,
        "trained_parameters": stage.trained_parameters,
    }
    lineage = {
        "input_sha256": model.sha256,
        "text_sha256": text.sha256,
        "validation_sha256": held_out.sha256 if held_out else None,
        "options": options.model_dump(mode="json", exclude={"text", "checkpoint_every"}),
        "seed": ctx.seed,
        "best_step": stage.best_step,
        **report,
    }
    tree: TreeRef = model
    if team.first:
        tree = write_tree(ctx, source, training.snapshots, state, lineage, under="regularize")
    return RegularizationReport(
        model=model.model_copy(update=tree.model_dump(include={"uri", "sha256", "bytes"})),
        **report,
        trials=trials,
        nll_before=before,
        nll_after=after,
        points=tuple(state.points),
        seconds=state.seconds,
    )


def doomed_layers(plan: ConversionPlan, strategies: tuple[str, ...]) -> tuple[int, ...]:
    """The layers that a plan takes out.

    Raises:
        InputError: there are none.
    """
    by_layer = plan.summary()
    layers = tuple(int(layer) for layer, strategy in by_layer.items() if strategy in strategies)
    if not layers:
        raise InputError(
            "the plan has no layer to regularise away",
            where="regularize.strategies",
            expected=f"a layer whose strategy is {' or '.join(strategies)}; "
            f"the plan has {', '.join(sorted(set(by_layer.values())))}",
            remedy="leave `regularize` out, or let the selector choose such layers",
        )
    return layers


def stage_of(
    options: RegularizeOptions, layers: tuple[int, ...], weight: float, steps: int | None = None
) -> HealingStage:
    """The training as a stage: next token, and the penalty with one weight."""
    shared = {name: getattr(options, name) for name in TrainingStage.model_fields}
    if steps is not None:
        shared |= {"steps": steps, "warmup_steps": min(options.warmup_steps, steps - 1)}
    penalty = Spec(name="layer_change", weight=weight, layers=list(layers), norm=options.norm)
    return HealingStage(objectives=(Spec(name="next_token"), penalty), **shared)


def skipped_nll(model: HybridForCausalLM, layers: tuple[int, ...], rows: Rows) -> float:
    """NLL per counted token, in nats, of a base with some layers skipped."""
    with converted(model, dict.fromkeys(layers, REMOVED)) as shorter:
        head = shorter.get_output_embeddings().weight.detach()
        objective = build(Objective, Spec(name="next_token"))
        nll = StageLoss(shorter, None, [objective], head=head).measure(rows).nll
    assert nll is not None
    return nll


def _sweep(
    training: Training,
    options: RegularizeOptions,
    layers: tuple[int, ...],
    held_rows: Rows | None,
    run: str,
) -> tuple[RegularizationTrial, ...]:
    """Each weight after a short training from the base; nothing where there is no choice."""
    if len(options.weights) == 1 or held_rows is None:
        return ()
    trials = []
    for index, weight in enumerate(options.weights):
        folder = training.snapshots.folder / f"trial-{index + 1}"
        folder.mkdir(exist_ok=True)
        trial = replace(
            training,
            snapshots=Snapshots(folder, f"{run}-{weight}", training.team),
            sink=silent,  # its steps would be told as if they were the training's
        )
        trial.run([stage_of(options, layers, weight, options.sweep_steps)])
        nll = _trained_nll(trial, layers, held_rows)
        assert nll is not None
        training.log(f"regularize: weight {weight:g} gives {nll:.4f} nats without the layers")
        trials.append(RegularizationTrial(weight=weight, nll=nll))
    return tuple(trials)


@torch.no_grad()
def _trained_nll(training: Training, layers: tuple[int, ...], rows: Rows | None) -> float | None:
    if rows is None:
        return None
    model = training.load_student()
    give(model, training.snapshots.weights(0))
    return skipped_nll(model, layers, rows)
