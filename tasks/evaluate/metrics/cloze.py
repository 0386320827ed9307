"""Cloze: predict the last word of passages of the user's text that occurred earlier in them."""

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from layerwright.tasks.evaluate.answers import answer_figures
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Count, Figure, TextMetric
from layerwright.tasks.passes.batches import documents
from layerwright.tasks.probes.cloze import cloze_passages


class Cloze(TextMetric):
    """Recall in real text: the last word of a passage occurred earlier in it, outside the window.

    - ``cloze.<text>``: share of passages whose last word would be decoded exactly.
    - ``cloze_log_prob.<text>``: mean log-probability of the last word per token, in nats.

    The earlier occurrence is more than ``keep_out_tokens`` away (tasks/probes/cloze.py). Unlike the
    generated keys of `recall`, such words do not stand out in the text.

    Attributes:
        keep_out_tokens: smallest distance, in tokens; None: sinks + window of the candidate's
            widest layer.
    """

    name = "cloze"
    families = ("cloze", "cloze_log_prob")

    passages: Count = 48
    passage_tokens: Annotated[int, Field(gt=1)] = 384
    keep_out_tokens: Annotated[int, Field(ge=0)] | None = None

    def estimate_tokens(self) -> int:
        return len(self.texts) * self.passages * self.passage_tokens

    def measure(self, arms: Arms) -> Iterator[Figure]:
        keep_out, size = self.keep_out_tokens, (self.passages, self.passage_tokens)
        keep_out = arms.keep_out_tokens if keep_out is None else keep_out
        for text in self.texts:
            plain = (d["text"] for d in documents(arms.texts.folders[text], text) if "text" in d)
            yield from answer_figures(
                arms,
                f"cloze.{text}",
                f"cloze_log_prob.{text}",
                [text, *size, keep_out],
                cloze_passages(
                    plain, arms.texts.tokenizer, *size, keep_out_tokens=keep_out, what=text
                ),
                what=f"cloze, {text}",
                item="passage",
                answer="last word",
                detail=f"passages of {self.passage_tokens} tokens; the word occurred at least "
                f"{keep_out} tokens earlier",
            )
