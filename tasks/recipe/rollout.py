"""The recipe's `rollout` block: stages and limits."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number, Positive, Share
from layerwright.tasks.contracts.rollout import SMALLEST_LEVEL, RolloutFigure
from layerwright.tasks.recipe.registry import ApprovalPolicy


class RolloutLimit(Contract):
    """How much worse than the champion's a figure of the challenger may be."""

    figure: RolloutFigure
    # by figure. ``latency_p50``, ``latency_p95`` (seconds per request), ``cost`` (money per
    # request): maximum ratio to the champion's. ``errors``: maximum increase of the share of failed
    # requests. ``match``: maximum decrease of the mean match with the reference. ``agreement``:
    # minimum of the mean ROUGE-L F1 with the champion's text. ``likelihood``: maximum increase of
    # the NLL of the champion's text, in nats per token.
    limit: Number
    # what is inside: the figure's ``value``, or its one-sided confidence ``bound``
    on: Literal["bound", "value"] = "bound"


class RolloutStage(Contract):
    """A stage: the challenger gets ``share`` of the traffic until it has answered ``requests``.

    At share 0 (shadow) both sides answer every request, and the champion's answer counts.
    """

    share: Share
    requests: Positive

    @property
    def name(self) -> str:
        return f"{100 * self.share:g} %" if self.share else "shadow"


STAGES = (
    RolloutStage(share=0.0, requests=50),
    RolloutStage(share=0.05, requests=20),
    RolloutStage(share=0.25, requests=50),
    RolloutStage(share=1.0, requests=100),
)


class RolloutPolicy(Contract):
    """The conditions under which a challenger advances, is rolled back and is promoted."""

    approval: ApprovalPolicy  # of the promotion after all stages
    # all must hold at every stage; one on ``errors`` is required
    limits: tuple[RolloutLimit, ...] = Field(min_length=1)
    stages: tuple[RolloutStage, ...] = Field(default=STAGES, min_length=1)
    # maximum number of looks (interim analyses) at a stage. Each look adds the stage's
    # ``requests``. A stage whose limits are still open after the last look is inconclusive.
    looks: Positive = 3
    significance: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05  # see tasks/rollout/stage.py
    min_items: Positive = 20  # minimum number of paired answers; below it a limit is open
    # whether an inconclusive challenger keeps its share of traffic
    undecided: Literal["hold", "roll back"] = "hold"
    match: Literal["rouge_l", "exact", "contains"] = "rouge_l"  # of an answer with the reference
    chat: bool = False  # send each prompt as a user message in the tokenizer's chat template
    max_new_tokens: Positive = 64  # for requests that do not give it

    @property
    def passing_level(self) -> float:
        """The level of one-sided bounds. At one look, a challenger just outside a limit passes it
        with at most this probability; over all looks at a stage, with ``significance``.
        """
        return self.significance / self.looks

    @property
    def failing_level(self) -> float:
        """The level of p-values. Over all looks and stages, a challenger just inside a limit is
        rolled back because of it with a probability of at most ``significance``.
        """
        return self.significance / (self.looks * len(self.stages))

    def limit(self, figure: RolloutFigure) -> RolloutLimit | None:
        return next((limit for limit in self.limits if limit.figure == figure), None)

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)) or shares[-1] != 1:
            raise ValueError(f"stages whose shares increase and end at 1, not {shares}")
        figures = [limit.figure for limit in self.limits]
        if len(set(figures)) < len(figures):
            raise ValueError(f"at most one limit per figure, not {', '.join(figures)}")
        if "errors" not in figures:
            raise ValueError("a limit on errors: the other figures ignore failed requests")
        if self.failing_level < SMALLEST_LEVEL:
            raise ValueError(
                f"fewer looks or stages, or a larger significance: {self.significance:g} divided "
                f"by {self.looks} looks at {len(self.stages)} stages is {self.failing_level:.2g}; "
                f"the bootstrap cannot resolve a level below {SMALLEST_LEVEL:g}"
            )
        return self
