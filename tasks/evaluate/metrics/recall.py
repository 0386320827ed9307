"""Recall of facts outside the window, over probes, prompt lengths and depths."""

from collections.abc import Iterator
from itertools import product
from typing import Annotated

from pydantic import Field

from layerwright.tasks.contracts.items import Words
from layerwright.tasks.evaluate.answers import answer_figures
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Counts, Figure, Metric, shown
from layerwright.tasks.probes.recall import Probes, RecallPrompt, recall_prompts

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

    name = "recall"
    presentation = {
        "recall": shown("Recall", "share of keys recalled exactly, all out of the window"),
        "key_log_prob": shown("Log-probability of the key", "nats per key token; 0 is best"),
    }

    probes: Probes = ("passkey",)
    prompts: Count = 24
    prompt_tokens: Counts = (600,)
    depths: Count = 4
    keep_out_tokens: Annotated[int, Field(ge=0)] | None = None

    def names(self) -> tuple[str, ...]:
        parts = product(self.probes, self.prompt_tokens, ("recall", "key_log_prob"))
        return tuple(f"{kind}.{probe}.{tokens}" for probe, tokens, kind in parts)

    def estimate_tokens(self) -> int:
        return len(self.probes) * self.prompts * sum(self.prompt_tokens)

    def measure(self, arms: Arms) -> Iterator[Figure]:
        keep_out, tokenizer = self.keep_out_tokens, arms.texts.tokenizer
        keep_out = arms.keep_out_tokens if keep_out is None else keep_out

        def words(prompt: RecallPrompt, likeliest: list[int]) -> Words:
            end = str(tokenizer.decode(prompt.ids[: prompt.key_start][-QUESTION_TOKENS:]))
            return Words(prompt=end, expected=prompt.key, said=str(tokenizer.decode(likeliest)))

        # recall_prompts puts the fact of prompt i at depth (i + 1/2) / count
        parts = [int(self.depths * (i + 0.5) / self.prompts) for i in range(self.prompts)]
        for probe, tokens in product(self.probes, self.prompt_tokens):
            asked = (self.prompts, tokens, arms.seed_of(probe))
            yield from answer_figures(
                arms,
                f"recall.{probe}.{tokens}",
                f"key_log_prob.{probe}.{tokens}",
                [probe, *asked, keep_out],
                recall_prompts(probe, tokenizer, *asked, keep_out_tokens=keep_out),
                what=f"{probe}, {tokens:,} tokens",
                item="prompt",
                answer="answer",
                detail=f"prompts of {tokens} tokens, the fact at least {keep_out} tokens before "
                "the answer",
                slices=[f"depth {p / self.depths:.3g}-{(p + 1) / self.depths:.3g}" for p in parts],
                words=words,
            )
