"""A staged roll-out: its policy, what was measured of each request, how it stands."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tasks.contracts import Contract, Number, Positive, Share
from tasks.promotion_contracts import ApprovalPolicy, Move

Side = Literal["champion", "challenger"]
Figure = Literal["errors", "latency_p50", "latency_p95", "cost", "match", "agreement", "likelihood"]
Verdict = Literal["advance", "roll back", "inconclusive"]
SMALLEST_LEVEL = 1e-3  # what the bootstrap's resamples can still tell from chance


class Request(Contract):
    """One line of a request log."""

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    reference: str | None = None
    max_new_tokens: Positive | None = None


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
        significance: see tasks/gate/stage.py.
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


class Answer(Contract):
    """What one side made of a request.

    Attributes:
        error: why there is no answer; then text and new_tokens are empty.
        seconds: from the prompt to the last token.
        cost: of the device for so long, where there is a price.
        match: with the request's reference, where there is one.
    """

    text: str = ""
    new_tokens: int = 0
    seconds: float
    error: str | None = None
    cost: float | None = None
    match: float | None = None


class Served(Contract):
    """One request of a stage: who served it, and what was measured.

    Where it was the challenger's turn, or both were asked, both sides are there: a pair.

    Attributes:
        prompt_sha256: of the request, so that another one by that id is found out.
        side: whose answer counts.
        agreement: ROUGE-L F1 of the challenger's text with the champion's.
        champion_nll, challenger_nll: nats per token of the champion's text, by each.
    """

    id: str
    prompt_sha256: str
    side: Side
    champion: Answer | None = None
    challenger: Answer | None = None
    agreement: float | None = None
    champion_nll: float | None = None
    challenger_nll: float | None = None

    @property
    def pair(self) -> tuple[Answer, Answer] | None:
        """Champion's and challenger's answers, where both were asked."""
        if self.champion is None or self.challenger is None:
            return None
        return self.champion, self.challenger


class LimitCheck(Contract):
    """One limit at one look. ``open`` means that the data do not say on which side the truth is.

    ``value`` and ``bound`` (one-sided, where the limit would be broken) are on the limit's scale.
    """

    figure: Figure
    limit: float
    value: float | None = None
    bound: float | None = None
    p_value: float | None = None
    items: int = 0
    verdict: Literal["inside", "outside", "open"]
    reason: str = ""


class StageDecision(Contract):
    """What one look at a stage said.

    ``requests``: read from the log in this stage; ``by_challenger``: those whose counting answer
    was the challenger's; ``pairs``: those that both answered.
    """

    stage: str
    share: float
    look: int
    requests: int
    by_challenger: int
    pairs: int
    verdict: Verdict
    checks: tuple[LimitCheck, ...]
    decided_at: str
    reason: str = ""


class RolloutState(Contract):
    """How a roll-out stands: one tag of the registered model, written whole.

    Attributes:
        champion, challenger: versions.
        attempt: of the model's roll-outs, counted from 1.
        stage: index of the stage, as many as there are once all have passed.
        look: the next look at it.
        share: of the requests that the challenger gets; the serving side reads it.
        since: when it got that share.
        begin: requests of the log that earlier stages read.
        log_sha256: of those.
        reason: of the last decision.
    """

    model: str
    champion: str
    challenger: str
    attempt: int
    policy_sha256: str
    stage: int = 0
    look: int = 1
    share: float = 0.0
    since: str
    begin: int = 0
    log_sha256: str
    status: Literal["running", "inconclusive", "rolled back", "promoted"] = "running"
    reason: str = ""


class StoppedRollout(Contract):
    """On a version that a roll-out rolled back: when, at which stage, and why."""

    at: str
    stage: str
    reason: str


class LiveShare(Contract):
    """What a serving side needs to know: two versions, and the challenger's share."""

    champion: str
    challenger: str | None = None
    share: float = 0.0


class RolloutResult(Contract):
    """How a roll-out ended, with the last decision of each stage. ``move``: of the promotion."""

    state: RolloutState
    stages: tuple[StageDecision, ...]
    move: Move | None = None
    records: str
