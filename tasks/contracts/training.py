"""Reports of training steps: finetune (healing) and regularize."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef


class TrainPoint(Contract):
    """One training step.

    Attributes:
        stage: from 0.
        step: from 1, counted over all stages.
        loss: the weighted sum of the objectives.
        values: each objective's mean, unweighted, in the unit that ``StageReport.units`` gives.
        tokens: tokens read so far, this step included.
    """

    stage: int = 0
    step: int
    loss: float
    values: dict[str, float]
    tokens: int
    learning_rate: float


class ValidationPoint(Contract):
    """One measurement of the model in training on held-out rows.

    Attributes:
        step: number of steps taken; 0 is before the first.
        seconds: training time so far.
        loss: the stage's weighted sum of objectives; the lowest in a stage marks its best state.
        nll: mean per token, in nats.
        kl: mean KL divergence from the base per token, in nats; None if the base does not run.
    """

    stage: int = 0
    step: int
    tokens: int
    seconds: float
    loss: float
    nll: float
    kl: float | None


class StageReport(Contract):
    """One stage of training.

    Attributes:
        units, weights: by objective.
        steps: steps taken: fewer than the recipe's if the stage stopped early, 0 if there was
            nothing to train.
        best_step: the step, counted over all stages, whose state the stage passed on; the last one
            without validation.
    """

    units: dict[str, str]
    weights: dict[str, float]
    adapter: str
    steps: int
    tokens: int
    trained_parameters: int
    best_step: int
    stopped_early: bool = False


class FinetuneReport(Contract):
    """The result of the finetune step.

    Attributes:
        checkpoint: the merged model; the input checkpoint if nothing was trained.
        best_step: the step of the last training stage whose state was merged.
    """

    checkpoint: CheckpointRef
    steps: int
    tokens: int
    trained_parameters: int
    points: tuple[TrainPoint, ...] = ()
    validation: tuple[ValidationPoint, ...] = ()
    stages: tuple[StageReport, ...] = ()
    best_step: int = 0
    stopped_early: bool = False
    processes: int = 1
    seconds: float = 0.0


class RegularizationTrial(Contract):
    """A short training with one penalty weight. ``nll``: with the layers to be removed skipped."""

    weight: float
    nll: float


class RegularizationReport(Contract):
    """The result of the regularize step (TRSP stage 2, arXiv 2505.18232).

    Attributes:
        model: the regularised base; it still has all layers.
        layers: the layers that the plan removes.
        weight: the penalty's weight; the best of ``trials`` if several were tried.
        nll_before, nll_after: validation NLL with ``layers`` skipped; None without validation.
    """

    model: ModelRef
    layers: tuple[int, ...]
    weight: float
    trials: tuple[RegularizationTrial, ...] = ()
    nll_before: float | None = None
    nll_after: float | None = None
    steps: int = 0
    tokens: int = 0
    trained_parameters: int = 0
    points: tuple[TrainPoint, ...] = ()
    seconds: float = 0.0
