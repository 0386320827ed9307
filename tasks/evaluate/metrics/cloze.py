"""Cloze: predict the last word of passages of the user's text that occurred earlier in them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated, ClassVar

from pydantic import Field

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Metric
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.batches import documents
from layerwright.tasks.probes.cloze import cloze_passages
from layerwright.tasks.probes.recall import RecallPrompt, key_scores


class Cloze(Metric):
    """Recall in real text: the last word of a passage occurred earlier in it, outside the window.

    - ``cloze.<text>``: share of passages whose last word would be decoded exactly.
    - ``cloze_log_prob.<text>``: mean log-probability of the last word per token, in nats.

    The earlier occurrence is more than ``keep_out_tokens`` away (tasks/probes/cloze.py). Unlike the
    generated keys of `recall`, such words do not stand out in the text.

    Attributes:
        keep_out_tokens: smallest distance, in tokens; None: sinks + window of the candidate's
            widest layer.
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

    def measure(self, arms: Arms) -> Iterator[Figure]:
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
                what = f"{arm}: cloze, {text}"
                scores = arms.item_results(arm, "cloze", options, passages, _scores, what=what)
                not_finite = sum(not math.isfinite(log_prob) for log_prob, _ in scores)
                for name, unit, values in (
                    (f"cloze.{text}", "share", [e if math.isfinite(p) else p for p, e in scores]),
                    (f"cloze_log_prob.{text}", "nats", [p for p, _ in scores]),
                ):
                    yield scored(
                        name,
                        arm,
                        [Item(f"passage {i}", value) for i, value in enumerate(values)],
                        unit=unit,
                        higher_is_better=True,
                        seed=arms.seed_of(name),
                        detail=f"passages of {self.passage_tokens} tokens; the word occurred at "
                        f"least {keep_out} tokens earlier",
                        not_finite="the last word's log-probability is not finite on "
                        f"{not_finite} of {len(scores)} passages",
                    )


def _scores(
    model: HybridForCausalLM, passages: Iterable[RecallPrompt]
) -> Iterator[tuple[float, bool]]:
    for passage in passages:
        [score] = key_scores(model, [passage])
        yield score.log_prob, score.exact
