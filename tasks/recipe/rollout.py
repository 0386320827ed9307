"""The recipe's `rollout` block: stages and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from layerwright.tasks.contracts.base import Contract, Number, Positive, Share
from layerwright.tasks.contracts.rollout import SMALLEST_LEVEL, Figure
from layerwright.tasks.recipe.approval import ApprovalPolicy


class RolloutLimit(Contract):
    """How much worse than the champion a figure of the challenger may be.

    ``latency_p50``, ``latency_p95`` (seconds of a request) and ``cost`` (money of a request): at
    most this ratio. ``errors``: the share of requests that fail rises by at most this. ``match``:
    the mean match with the reference falls by at most this. ``agreement``: the mean ROUGE-L F1
    with the champion's text is at least this. ``likelihood``: the champion's text costs the
    challenger at most so many nats per token more than the champion.

    ``on``: a stage passes once the one-sided ``bound`` is inside the limit, or once the ``value``
    is.
    """

    figure: Figure
    limit: Number
    on: Literal["bound", "value"] = "bound"


class RolloutStage(Contract):
    """``share`` of the requests go to the challenger, until it has answered ``requests``.

    At share 0 (shadow) both answer every request, and the champion's answer counts.
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
    """What advances a challenger, what rolls it back, and who answers for its promotion.

    Attributes:
        limits: each of them must hold at each stage; one on ``errors`` is among them.
        looks: a stage that leaves a limit open goes on for as many requests again, so often at
            most; then it is inconclusive.
        significance: see tasks/rollout/stage.py.
        min_items: a figure from fewer pairs of answers is open.
        undecided: what becomes of an inconclusive challenger: it keeps its share and waits
            (``hold``), or goes (``roll back``).
        match: how an answer is compared with the reference.
        chat: each prompt is a user's message, put into the tokenizer's chat template.
        max_new_tokens: of requests that do not say.
    """

    approval: ApprovalPolicy
    limits: tuple[RolloutLimit, ...] = Field(min_length=1)
    stages: tuple[RolloutStage, ...] = Field(default=STAGES, min_length=1)
    looks: Positive = 3
    significance: Annotated[Number, Field(gt=0, lt=0.5)] = 0.05
    min_items: Positive = 20
    undecided: Literal["hold", "roll back"] = "hold"
    match: Literal["rouge_l", "exact", "contains"] = "rouge_l"
    chat: bool = False
    max_new_tokens: Positive = 64

    @property
    def passing_level(self) -> float:
        """Of a one-sided bound: the chance that one look passes what is just outside a limit."""
        return self.significance / self.looks

    @property
    def failing_level(self) -> float:
        """Of a p-value: over all looks and stages a challenger that is just inside a limit is
        rolled back for it with a chance of ``significance`` at most."""
        return self.significance / (self.looks * len(self.stages))

    def limit(self, figure: Figure) -> RolloutLimit | None:
        return next((one for one in self.limits if one.figure == figure), None)

    @model_validator(mode="after")
    def _makes_sense(self) -> RolloutPolicy:
        shares = [stage.share for stage in self.stages]
        if shares != sorted(set(shares)) or shares[-1] != 1:
            raise ValueError(f"stages whose shares rise and end at 1, not {shares}")
        figures = [one.figure for one in self.limits]
        if len(set(figures)) < len(figures):
            raise ValueError(f"one limit for each figure, not {', '.join(figures)}")
        if "errors" not in figures:
            raise ValueError("a limit on errors: the other figures count answers alone")
        if self.failing_level < SMALLEST_LEVEL:
            raise ValueError(
                f"fewer looks or stages, or a larger significance: {self.significance:g} over "
                f"{self.looks} looks at {len(self.stages)} stages is {self.failing_level:.2g} "
                f"each, below {SMALLEST_LEVEL:g}, which resampling cannot tell"
            )
        return self
