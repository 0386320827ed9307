"""Regularization: train the base before layers are removed, so that they change little."""

from dataclasses import replace

import torch

from layerwright.tasks.context import Context, no_metrics
from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.plan import ConversionPlan
from layerwright.tasks.contracts.references import ModelRef, TextRef
from layerwright.tasks.contracts.training import RegularizationReport, RegularizationTrial
from layerwright.tasks.errors import InputError
from layerwright.tasks.finetune.adapters import apply_weights
from layerwright.tasks.finetune.losses import StageLoss
from layerwright.tasks.finetune.objectives.layer_change import LayerChange
from layerwright.tasks.finetune.objectives.next_token import NextToken
from layerwright.tasks.finetune.rows import Rows
from layerwright.tasks.finetune.setup import TrainingSetup, stored, totals
from layerwright.tasks.finetune.snapshot import Snapshots
from layerwright.tasks.finetune.training import Training
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.models.conversion import converted
from layerwright.tasks.models.loading import load_base
from layerwright.tasks.recipe.regularize import RegularizeOptions
from layerwright.tasks.recipe.training import HealingStage, TrainingStage

REMOVED = {"mixer": {"kind": "none"}, "feed_forward": {"kind": "none"}}


def regularize_model(
    model: ModelRef,
    plan: ConversionPlan,
    text: TextRef,
    held_out: TextRef | None,
    options: RegularizeOptions,
    ctx: Context,
) -> RegularizationReport:
    """Train a base so that the layers that a plan removes change little.

    loss = next token + lambda * sum over removed layers l of mean over tokens ||x_{l+1} - x_l|| / n

    n = sqrt(D) for the l2 norm and D for l1 (``objectives/layer_change.py``). The paper (TRSP
    stage 2, arXiv 2505.18232) does not divide the norm, so its lambda of 1e-3 at D = 4096 is 0.064
    here. The result still has all layers: it is a base, and the plan's conversion starts from it.

    Several weights (lambda) are each tried for ``sweep_steps`` from the base. The one with the
    lowest NLL on the held-out rows, without the layers to remove, is used for the full training.
    The training state is saved in ``ctx.workdir``; a later call resumes from it. InputError if the
    plan removes no layer, or a text gives no row. StepError if the loss is not finite; the last
    saved training state is kept.
    """
    layers = layers_to_remove(plan, options.strategies)
    folder = ctx.store.open_tree(model.sha256)
    inputs = identity([model, plan, text, held_out, options, ctx.seed])
    setup = TrainingSetup("regularize", folder, folder, text, held_out, options, ctx, inputs)
    training, rows = setup.training(load_base), setup.held_out_rows
    before = nll_without_layers(training.load_student(), layers, rows) if rows else None
    trials = _sweep(training, options, layers, rows)
    weight = min(trials, key=lambda trial: trial.nll).weight if trials else options.weights[0]
    state = training.run([penalty_stage(options, layers, weight)])
    after = _trained_nll(training, layers, rows) if rows else None
    facts = {"layers": layers, "weight": weight, "best_step": state.stages[-1].best_step}
    tree = setup.write_tree(state, input_sha256=model.sha256, **facts)
    return RegularizationReport(
        model=model.model_copy(update=stored(tree or model)),
        layers=layers,
        weight=weight,
        trials=trials,
        nll_before=before,
        nll_after=after,
        **totals(state),
    )


def layers_to_remove(plan: ConversionPlan, strategies: tuple[str, ...]) -> tuple[int, ...]:
    """The layers that a plan converts with one of the strategies; InputError if none."""
    by_layer = plan.summary()
    layers = tuple(int(layer) for layer, strategy in by_layer.items() if strategy in strategies)
    if not layers:
        raise InputError(
            "the plan removes no layer, so there is nothing to regularise",
            where="regularize.strategies",
            expected=f"a layer whose strategy is {' or '.join(strategies)}; "
            f"the plan has {', '.join(sorted(set(by_layer.values())))}",
            remedy="delete `regularize` from the recipe, or let the selector choose such layers",
        )
    return layers


def penalty_stage(
    options: RegularizeOptions, layers: tuple[int, ...], weight: float, steps: int | None = None
) -> HealingStage:
    """The training as a stage: the next-token loss plus the weighted penalty on the layers."""
    fields = {name: getattr(options, name) for name in TrainingStage.model_fields}
    if steps is not None:
        fields |= {"steps": steps, "warmup_steps": min(options.warmup_steps, steps - 1)}
    penalty = LayerChange(weight=weight, layers=layers, norm=options.norm)
    return HealingStage(objectives=(NextToken(), penalty), **fields)


def nll_without_layers(model: HybridForCausalLM, layers: tuple[int, ...], rows: Rows) -> float:
    """NLL per counted token, in nats, of a base without some layers."""
    with converted(model, dict.fromkeys(layers, REMOVED)) as shorter:
        head = shorter.get_output_embeddings().weight.detach()
        nll = StageLoss(shorter, None, [NextToken()], head=head).measure(rows).nll
    assert nll is not None
    return nll


def _sweep(
    training: Training, options: RegularizeOptions, layers: tuple[int, ...], held_out: Rows | None
) -> tuple[RegularizationTrial, ...]:
    """Train briefly from the base with each weight; empty if the options name a single weight."""
    if len(options.weights) == 1 or held_out is None:
        return ()
    trials = []
    for index, weight in enumerate(options.weights):
        folder = training.snapshots.folder / f"trial-{index + 1}"
        folder.mkdir(exist_ok=True)
        trial = replace(
            training,
            validation=None,
            snapshots=Snapshots(folder, f"{training.snapshots.inputs}-{weight}", training.team),
            sink=no_metrics,  # the metrics of the trials must not look like those of the training
        )
        trial.run([penalty_stage(options, layers, weight, options.sweep_steps)])
        nll = _trained_nll(trial, layers, held_out)
        training.log(f"regularize: weight {weight:g} gives {nll:.4f} nats without the layers")
        trials.append(RegularizationTrial(weight=weight, nll=nll))
    return tuple(trials)


@torch.no_grad()
def _trained_nll(training: Training, layers: tuple[int, ...], rows: Rows) -> float:
    model = training.load_student()
    apply_weights(model, training.snapshots.weights(0))
    return nll_without_layers(model, layers, rows)
