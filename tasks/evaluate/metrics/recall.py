"""Recall of facts outside the window, over probes, prompt lengths and depths."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.contracts.evaluation import Presentation
from layerwright.tasks.contracts.items import Words
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.recall import Probes, RecallPrompt, key_scores, recall_prompts
from layerwright.tasks.probes.recall_cases import Probe

Length = Annotated[int, Field(gt=0)]
QUESTION_TOKENS = 60  # the last tokens of a prompt, stored with its result


class Recall(Metric):
    """Recall of facts in generated prompts of n tokens.

    - ``recall.<probe>.<n>``: share of answers that would be decoded exactly.
    - ``key_log_prob.<probe>.<n>``: mean log-probability of the answers per token, in nats.

    A prompt states the fact once, more than ``keep_out_tokens`` before the answer, which is scored
    by teacher forcing (tasks/probes/recall.py and recall_cases.py). The prompts have their own
    seed, so they are not the prompts that the plan was chosen on. The facts are spread evenly over
    the allowed depths, from the start of the text (0) to the last position outside sinks and window
    (1); each of ``depths`` equal parts of that range is a slice.

    Attributes:
        prompts: number of prompts for each probe and length.
        keep_out_tokens: smallest distance of fact and answer, in tokens; None: sinks + window of
            the candidate's widest layer.
    """

    name: ClassVar[str] = "recall"
    presentation: ClassVar[Mapping[str, Presentation]] = {
        "recall": Presentation(
            label="Recall",
            part="quality",
            help="share of keys recalled exactly, all out of the window",
        ),
        "key_log_prob": Presentation(
            label="Log-probability of the key", part="quality", help="nats per key token; 0 is best"
        ),
    }

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
        ends = [str(tokenizer.decode(p.ids[: p.key_start][-QUESTION_TOKENS:])) for p in prompts]
        options = [probe, self.prompts, tokens, keep_out, seed]
        for arm in arms.names:
            what = f"{arm}: {probe}, {tokens:,} tokens"
            scores = arms.item_results(arm, "recall", options, prompts, _scores, what=what)
            answers = [
                Words(prompt=end, expected=prompt.key, said=str(tokenizer.decode(likeliest)))
                for end, prompt, (_, _, likeliest) in zip(ends, prompts, scores, strict=True)
            ]
            not_finite = sum(not math.isfinite(log_prob) for log_prob, _, _ in scores)
            figure = partial(
                scored,
                higher_is_better=True,
                detail=f"prompts of {tokens} tokens, the fact at least {keep_out} tokens before "
                "the answer",
                not_finite=f"the answer's log-probability is not finite on {not_finite} of "
                f"{len(scores)} prompts",
            )
            name = f"{probe}.{tokens}"
            for metric, unit, values, words in (
                (
                    f"recall.{name}",
                    "share",
                    [e if math.isfinite(p) else p for p, e, _ in scores],
                    answers,
                ),
                (f"key_log_prob.{name}", "nats", [p for p, _, _ in scores], None),
            ):
                items = self._items(values, words)
                yield figure(metric, arm, items, unit=unit, seed=arms.seed_of(metric))

    def _items(self, values: Sequence[float | bool], words: Sequence[Words] | None) -> list[Item]:
        """Return the results of the prompts; the slice is the range of the fact's depth."""
        # recall_prompts puts the fact of prompt i at depth (i + 1/2) / count
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
