"""Recall of facts that no window reaches, over probes, lengths and depths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.contracts.items import Words
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.recall import Probes, RecallPrompt, key_scores, recall_prompts
from layerwright.tasks.probes.recall_cases import Probe

Length = Annotated[int, Field(gt=0)]
QUESTION_TOKENS = 60  # of a prompt's end, kept with its result


class Recall(Metric):
    """``recall.<probe>.<n>``: share of answers that would be decoded exactly, of prompts of n
    tokens; and ``key_log_prob.<probe>.<n>``: their mean log-probability per token, in nats.

    What is asked for is stated once, more than ``keep_out_tokens`` before the answer, and scored
    by teacher forcing (tasks/probes/recall.py; the probes are in recall_cases.py beside it). The
    prompts come from a seed stream of their own: the plan was not chosen on them. They spread
    evenly over the depths that are allowed; a slice is one of ``depths`` equal parts of these, from
    the start of the text (0) to the last place outside sinks and window (1).

    Attributes:
        prompts: of each probe and length.
        keep_out_tokens: sinks + window to stay out of; None takes the candidate's largest.
    """

    name: ClassVar[str] = "recall"

    probes: Probes = ("passkey",)
    prompts: Annotated[int, Field(gt=0)] = 24
    prompt_tokens: Annotated[tuple[Length, ...], Field(min_length=1)] = (600,)
    depths: Annotated[int, Field(gt=0)] = 4
    keep_out_tokens: Annotated[int, Field(ge=0)] | None = None

    def names(self) -> tuple[str, ...]:
        return tuple(
            f"{kind}.{probe}.{tokens}"
            for probe in self.probes
            for tokens in self.prompt_tokens
            for kind in ("recall", "key_log_prob")
        )

    def estimate_tokens(self) -> int:
        return len(self.probes) * self.prompts * sum(self.prompt_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        keep_out = self.keep_out_tokens
        if keep_out is None:
            keep_out = arms.keep_out_tokens
        for probe in self.probes:
            for tokens in self.prompt_tokens:
                yield from self._measure(arms, probe, tokens, keep_out)

    def _measure(self, arms: Arms, probe: Probe, tokens: int, keep_out: int) -> Iterator[Figure]:
        seed = arms.seed_of(probe)
        tokenizer = arms.texts.tokenizer
        prompts = recall_prompts(
            probe, tokenizer, self.prompts, tokens, seed, keep_out_tokens=keep_out
        )
        ends = [tokenizer.decode(p.ids[: p.key_start][-QUESTION_TOKENS:]) for p in prompts]
        options = [probe, self.prompts, tokens, keep_out, seed]
        for arm in arms.names:
            what = f"{arm}: {probe}, {tokens:,} tokens"
            found = arms.remembered(arm, "recall", options, prompts, _scores, what=what)
            said = [
                Words(prompt=end, expected=prompt.key, said=tokenizer.decode(likeliest))
                for end, prompt, (_, _, likeliest) in zip(ends, prompts, found, strict=True)
            ]
            lost = sum(not math.isfinite(log_prob) for log_prob, _, _ in found)
            figure = partial(
                scored,
                higher_is_better=True,
                detail=f"prompts of {tokens} tokens, what is asked for at least {keep_out} tokens "
                "before the answer",
                not_finite=f"the key's log-probability is not finite on {lost} of {len(found)} "
                "prompts",
            )
            name = f"{probe}.{tokens}"
            for metric, unit, values, words in (
                (
                    f"recall.{name}",
                    "share",
                    [e if math.isfinite(p) else p for p, e, _ in found],
                    said,
                ),
                (f"key_log_prob.{name}", "nats", [p for p, _, _ in found], None),
            ):
                items = self._items(values, words)
                yield figure(metric, arm, items, unit=unit, seed=arms.seed_of(metric))

    def _items(self, values: Sequence[float | bool], words: Sequence[Words] | None) -> list[Item]:
        """The prompts' results, each in the part of the depths that its answer stands in."""
        # recall_prompts puts prompt i at (i + 1/2) / count of what is allowed
        parts = [int(self.depths * (index + 0.5) / len(values)) for index in range(len(values))]
        return [
            Item(
                f"prompt {index}",
                value,
                slice=f"depth {part / self.depths:.3g}-{(part + 1) / self.depths:.3g}",
                words=words[index] if words else None,
            )
            for index, (value, part) in enumerate(zip(values, parts, strict=True))
        ]


def _scores(
    model: HybridForCausalLM, prompts: Iterable[RecallPrompt]
) -> Iterator[tuple[float, bool, tuple[int, ...]]]:
    for prompt in prompts:
        [score] = key_scores(model, [prompt])
        yield score.log_prob, score.exact, score.likeliest
