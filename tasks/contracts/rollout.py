"""The staged roll-out: requests and answers, the decision of each stage, and the state."""

from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Positive
from layerwright.tasks.contracts.promotion import Move

Side = Literal["champion", "challenger"]
RolloutFigure = Literal[
    "errors", "latency_p50", "latency_p95", "cost", "match", "agreement", "likelihood"
]
Verdict = Literal["advance", "roll back", "inconclusive"]
SMALLEST_LEVEL = 1e-3  # the smallest significance level that the bootstrap's resamples can resolve


class Request(Contract):
    """One line of a request log: a prompt, and the expected answer if there is one."""

    id: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    reference: str | None = None
    max_new_tokens: Positive | None = None


class Answer(Contract):
    """One side's answer to a request."""

    text: str = ""
    new_tokens: int = 0
    seconds: float  # from the prompt to the last token
    error: str | None = None  # why there is no answer; ``text`` and ``new_tokens`` are then empty
    cost: float | None = None  # device cost of these seconds, if the recipe gives a price
    match: float | None = None  # score against the request's reference, if it has one


class Served(Contract):
    """The record of one request in a stage.

    Both sides answer a request of the shadow stage and each request that goes to the challenger;
    the champion alone answers the others.
    """

    id: str
    prompt_sha256: str  # digest of the request; detects a changed request under the same id
    side: Side  # the side that the request is assigned to
    champion: Answer | None = None
    challenger: Answer | None = None
    agreement: float | None = None  # ROUGE-L F1 of the challenger's text against the champion's
    champion_nll: float | None = None  # of the champion's text, in nats per token
    challenger_nll: float | None = None  # of the same text

    @property
    def pair(self) -> tuple[Answer, Answer] | None:
        """The answers of champion and challenger; None if only one side answered."""
        if self.champion is None or self.challenger is None:
            return None
        return self.champion, self.challenger


class LimitCheck(Contract):
    """One limit at one look (interim analysis)."""

    figure: RolloutFigure
    limit: float
    value: float | None = None  # in the limit's unit, as the bound
    bound: float | None = None  # one-sided confidence bound towards the limit
    p_value: float | None = None
    items: int = 0
    verdict: Literal["inside", "outside", "open"]  # ``open``: the data do not decide
    reason: str = ""


class StageDecision(Contract):
    """The decision of one look at a stage."""

    stage: str
    share: float
    look: int
    requests: int  # requests of this stage so far
    by_challenger: int  # requests assigned to the challenger
    pairs: int  # requests that both sides answered
    verdict: Verdict
    checks: tuple[LimitCheck, ...]
    decided_at: str
    reason: str = ""


class RolloutState(Contract):
    """The state of a roll-out, stored in one tag of the registered model."""

    model: str
    champion: str  # a version, as the challenger
    challenger: str
    attempt: int  # number of this roll-out among the model's roll-outs, from 1
    policy_sha256: str
    stage: int = 0  # index of the current stage; the number of stages once all have passed
    look: int = 1  # number of the next look at this stage, from 1
    share: float = 0.0  # share of traffic that the challenger gets; serving reads it
    since: str  # when the challenger got this share
    begin: int = 0  # number of requests that earlier stages read from the log
    log_sha256: str  # digest of those requests; detects a changed log
    status: Literal["running", "inconclusive", "rolled back", "promoted"] = "running"
    reason: str = ""  # of the last decision


class StoppedRollout(Contract):
    """The tag of a version that a roll-out rolled back: when, at which stage, and why."""

    at: str
    stage: str
    reason: str


class LiveShare(Contract):
    """Both versions and the challenger's share of traffic, for a serving process."""

    champion: str
    challenger: str | None = None
    share: float = 0.0


class RolloutResult(Contract):
    """The result of a roll-out run."""

    state: RolloutState
    stages: tuple[StageDecision, ...]  # the last decision of each stage
    move: Move | None = None  # the promotion, if there was one
    records: str  # folder with the record of every request
