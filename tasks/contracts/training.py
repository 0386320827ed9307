"""What training hands on: points of the loss, validations, reports of stages and of the whole."""

from __future__ import annotations

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef


class TrainPoint(Contract):
    """One training step.

    ``stage`` counts from 0, ``step`` from 1 over all stages; ``tokens`` were read up to and with
    this step. ``loss`` is the weighted sum that was minimised, ``values`` each objective's mean by
    name, before its weight, in the unit that its ``StageReport`` gives.
    """

    stage: int = 0
    step: int
    loss: float
    values: dict[str, float]
    tokens: int
    learning_rate: float


class ValidationPoint(Contract):
    """The model in training on held-out rows, after ``step`` steps (0: before the first).

    ``loss`` is the stage's own weighted sum on those rows: the lowest in a stage is its best state.
    ``nll`` and ``kl`` to the base are means per token, in nats. ``seconds`` of training before it.
    """

    stage: int = 0
    step: int
    tokens: int
    seconds: float
    loss: float
    nll: float
    kl: float | None  # None where the base is not run


class StageReport(Contract):
    """One stage of a training. ``units`` and ``weights`` are by objective.

    ``best_step`` is the step (over all stages) whose state the stage handed on; without validation
    it is the last. ``steps`` is how many it took, fewer than asked for where it stopped early; 0
    where it had nothing to train.
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
    """What healing did. ``checkpoint`` is the merged model, or the input when nothing was done.

    ``best_step`` is the step whose state was merged, of the last stage that trained.
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
    """One weight of the penalty after a short training; ``nll`` with the doomed layers skipped."""

    weight: float
    nll: float


class RegularizationReport(Contract):
    """What regularisation before removal did (TRSP stage 2, arXiv 2505.18232).

    ``model`` is the regularised base, whose layers are all there still; ``layers`` are doomed;
    ``weight`` is the penalty's, the best of ``trials`` where several were tried. ``nll_before`` and
    ``nll_after`` are validation NLLs with the doomed layers skipped, where there is a validation.
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
