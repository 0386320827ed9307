"""Reports of training steps: finetune (healing) and regularize."""

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.contracts.references import CheckpointRef, ModelRef


class TrainPoint(Contract):
    """One training step."""

    stage: int = 0  # from 0
    step: int  # from 1, counted over all stages
    loss: float  # the weighted sum of the objectives
    values: dict[str, float]  # mean of each objective, unweighted, in its unit (`StageReport`)
    tokens: int  # tokens read so far, this step included
    learning_rate: float


class ValidationPoint(Contract):
    """One measurement of the model in training on held-out rows."""

    stage: int = 0
    step: int  # number of steps taken; 0 is before the first
    tokens: int
    seconds: float  # training time so far
    loss: float  # weighted sum of objectives; the stage's lowest marks its best state
    nll: float  # mean per token, in nats
    kl: float | None  # mean KL from the base per token, in nats; None if the base does not run


class StageReport(Contract):
    """One stage of training."""

    units: dict[str, str]  # by objective, as the weights
    weights: dict[str, float]
    adapter: str
    steps: int  # fewer than the recipe's after an early stop, 0 if nothing was trained
    tokens: int
    trained_parameters: int
    # whose state the stage passed on, counted over all stages; without validation the last
    best_step: int
    stopped_early: bool = False


class FinetuneReport(Contract):
    """The result of the finetune step."""

    checkpoint: CheckpointRef  # the merged model; the input checkpoint if nothing was trained
    steps: int
    tokens: int
    trained_parameters: int
    points: tuple[TrainPoint, ...] = ()
    validation: tuple[ValidationPoint, ...] = ()
    stages: tuple[StageReport, ...] = ()
    best_step: int = 0  # the step of the last training stage whose state was merged
    stopped_early: bool = False
    processes: int = 1
    seconds: float = 0.0


class RegularizationTrial(Contract):
    """A short training with one penalty weight. ``nll``: with the layers to be removed skipped."""

    weight: float
    nll: float


class RegularizationReport(Contract):
    """The result of the regularize step (TRSP stage 2, arXiv 2505.18232)."""

    model: ModelRef  # the regularised base; it still has all layers
    layers: tuple[int, ...]  # the layers that the plan removes
    weight: float  # the penalty's weight; the best of ``trials`` if several were tried
    trials: tuple[RegularizationTrial, ...] = ()
    # validation NLL with ``layers`` skipped, as nll_after; None without validation
    nll_before: float | None = None
    nll_after: float | None = None
    steps: int = 0
    tokens: int = 0
    trained_parameters: int = 0
    points: tuple[TrainPoint, ...] = ()
    seconds: float = 0.0
