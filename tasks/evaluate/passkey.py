"""Recall of a key that no window reaches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from tasks.evaluate.arms import Arms
from tasks.evaluate.base import Figure, Metric
from tasks.evaluate.scoring import Item, scored
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

    def measure(self, arms: Arms) -> Iterator[Figure]:
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
            found = arms.remembered(
                arm, "passkey", options, prompts, _scores, what=f"{arm}: passkey"
            )
            lost = sum(not math.isfinite(log_prob) for log_prob, _ in found)
            figure = partial(
                scored,
                higher_is_better=True,
                detail=f"prompts of {self.prompt_tokens} tokens, key at least {keep_out} tokens "
                "before the answer",
                not_finite=f"the key's log-probability is not finite on {lost} of {len(found)} "
                "prompts",
            )
            for name, unit, values in (
                ("recall.passkey", "share", [e if math.isfinite(p) else p for p, e in found]),
                ("key_log_prob.passkey", "nats", [p for p, _ in found]),
            ):
                items = [_item(i, v, prompts[i].depth) for i, v in enumerate(values)]
                yield figure(name, arm, items, unit=unit, seed=arms.seed_of(name))


def _item(index: int, value: float | bool, depth: float) -> Item:
    """A prompt's result, in the quarter of the depths that its key stands in."""
    quarter = min(int(4 * depth), 3)
    return Item(f"prompt {index}", value, slice=f"depth {quarter / 4:g}-{(quarter + 1) / 4:g}")


def _scores(
    model: HybridForCausalLM, prompts: Iterable[RecallPrompt]
) -> Iterator[tuple[float, bool]]:
    for prompt in prompts:
        [score] = key_scores(model, [prompt])
        yield score.log_prob, score.exact
