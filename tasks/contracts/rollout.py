"""A staged roll-out: its policy, what was measured of each request, how it stands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from layerwright.tasks.contracts.base import Contract, Positive
from layerwright.tasks.contracts.promotion import Move

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
