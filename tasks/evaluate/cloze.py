"""The last word of passages of the user's own text, where it was said before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from scipy.stats import binomtest

from tasks.contracts import Measurement
from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Metric, measured
from tasks.evaluate.interval import token_interval
from tasks.hybrid.modeling import HybridForCausalLM
from tasks.measure.batches import documents
from tasks.measure.cloze import cloze_passages
from tasks.measure.recall import RecallPrompt, key_scores


class Cloze(Metric):
    """``cloze.<text>``: share of passages whose last word would be decoded exactly; and
    ``cloze_log_prob.<text>``: its mean log-probability per token, in nats.

    The word stands in the passage before, more than ``keep_out_tokens`` away
    (tasks/measure/cloze.py): recall in real text, where generated keys are easy to spot.

    Attributes:
        keep_out_tokens: sinks + window to stay out of; None takes the candidate's largest.
    """

    name: ClassVar[str] = "cloze"

    texts: Annotated[tuple[str, ...], Field(min_length=1)]
    passages: Annotated[int, Field(gt=0)] = 48
    passage_tokens: Annotated[int, Field(gt=1)] = 384
    keep_out_tokens: Annotated[int, Field(ge=0)] | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(f"{kind}.{t}" for t in self.texts for kind in ("cloze", "cloze_log_prob"))

    def needed_texts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.texts))

    def estimate_tokens(self) -> int:
        return len(self.texts) * self.passages * self.passage_tokens

    def measure(self, arms: Arms) -> Iterator[Measurement]:
        keep_out = self.keep_out_tokens
        if keep_out is None:
            keep_out = arms.keep_out_tokens
        for text in self.texts:
            plain = (d["text"] for d in documents(arms.texts.folders[text], text) if "text" in d)
            passages = cloze_passages(
                plain,
                arms.texts.tokenizer,
                self.passages,
                self.passage_tokens,
                keep_out_tokens=keep_out,
                what=text,
            )
            options = [text, self.passages, self.passage_tokens, keep_out]
            for arm in arms.names:
                shown = arms.track(passages, f"{arm}: cloze, {text}")
                found = arms.remembered(arm, "cloze", options, partial(_scores, passages=shown))
                yield from _figures(text, arm, np.array(found), arms.seed_of(f"cloze/{text}"))


def _figures(text: str, arm: str, found: np.ndarray, seed: int) -> Iterator[Measurement]:
    log_probs, exact = found.T
    finite = bool(np.isfinite(log_probs).all())
    bounds = binomtest(int(exact.sum()), len(exact)).proportion_ci(method="wilson")
    figure = partial(
        measured,
        higher_is_better=True,
        count=len(exact),
        not_finite=f"the last word's log-probability is not finite on "
        f"{(~np.isfinite(log_probs)).sum()} of {len(exact)} passages",
    )
    yield figure(
        f"cloze.{text}",
        arm,
        float(exact.mean()) if finite else float("nan"),
        unit="share",
        interval=(bounds.low, bounds.high),
    )
    yield figure(
        f"cloze_log_prob.{text}",
        arm,
        float(log_probs.mean()),
        unit="nats",
        interval=token_interval(log_probs[:, None], seed) if finite else None,
    )


def _scores(model: HybridForCausalLM, passages: Iterable[RecallPrompt]) -> list[tuple[float, bool]]:
    found = [key_scores(model, [passage])[0] for passage in passages]
    return [(score.log_prob, score.exact) for score in found]
