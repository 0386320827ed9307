"""Recall of a key that no window reaches."""

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
from tasks.measure.recall import RecallPrompt, key_scores, recall_prompts


class Passkey(Metric):
    """``recall.passkey``: share of five-digit keys that would be decoded exactly; and
    ``key_log_prob.passkey``: mean log-probability per key token, in nats.

    The key is stated once, more than ``keep_out_tokens`` before the question, and scored by
    teacher forcing (tasks/measure/recall.py). The prompts come from a seed stream of their own:
    the plan was not chosen on them.

    Attributes:
        keep_out_tokens: sinks + window to stay out of; None takes the candidate's largest.
    """

    name: ClassVar[str] = "passkey"

    prompts: Annotated[int, Field(gt=0)] = 24
    prompt_tokens: Annotated[int, Field(gt=0)] = 600
    keep_out_tokens: Annotated[int, Field(ge=0)] | None = None

    def names(self) -> tuple[str, ...]:
        return ("recall.passkey", "key_log_prob.passkey")

    def estimate_tokens(self) -> int:
        return self.prompts * self.prompt_tokens

    def measure(self, arms: Arms) -> Iterator[Measurement]:
        keep_out = self.keep_out_tokens
        if keep_out is None:
            keep_out = arms.keep_out_tokens
        seed = arms.seed_of("passkey")
        prompts = recall_prompts(
            "passkey",
            arms.texts.tokenizer,
            self.prompts,
            self.prompt_tokens,
            seed,
            keep_out_tokens=keep_out,
        )
        options = [self.prompts, self.prompt_tokens, keep_out, seed]
        for arm in arms.names:
            shown = arms.track(prompts, f"{arm}: passkey")
            found = arms.remembered(arm, "passkey", options, partial(_scores, prompts=shown))
            log_probs, exact = np.array(found).T
            finite = bool(np.isfinite(log_probs).all())
            right = int(exact.sum())
            bounds = binomtest(right, len(exact)).proportion_ci(method="wilson")
            figure = partial(
                measured,
                higher_is_better=True,
                count=len(exact),
                detail=f"prompts of {self.prompt_tokens} tokens, key at least {keep_out} tokens "
                "before the answer",
                not_finite="the key's log-probability is not finite on "
                f"{(~np.isfinite(log_probs)).sum()} of {len(exact)} prompts",
            )
            yield figure(
                "recall.passkey",
                arm,
                right / len(exact) if finite else float("nan"),
                unit="share",
                interval=(bounds.low, bounds.high),
            )
            yield figure(
                "key_log_prob.passkey",
                arm,
                float(log_probs.mean()),
                unit="nats",
                interval=token_interval(log_probs[:, None], seed) if finite else None,
            )


def _scores(model: HybridForCausalLM, prompts: Iterable[RecallPrompt]) -> list[tuple[float, bool]]:
    found = [key_scores(model, [prompt])[0] for prompt in prompts]
    return [(score.log_prob, score.exact) for score in found]
