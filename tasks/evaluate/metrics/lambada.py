"""LAMBADA: predict the last word of a passage, which needs the context of the whole passage."""

from typing import Annotated

from pydantic import AfterValidator

from layerwright.tasks.evaluate.base import shown
from layerwright.tasks.evaluate.zero_shot import Row, ZeroShot


def _has_a_last_word(text: str) -> str:
    before, _, last = text.rpartition(" ")
    if not before.strip() or not last.strip():
        raise ValueError("a passage needs a word after its last space, and words before it")
    return text


class LambadaRow(Row):
    text: Annotated[str, AfterValidator(_has_a_last_word)]


class Lambada(ZeroShot):
    """``task.<text>.acc``, ``word_perplexity.<text>``: LAMBADA (arXiv 1606.06031).

    The share of last words that would be decoded greedily, and exp of their mean NLL per word, in
    nats.
    """

    name = "lambada"
    presentation = {
        **ZeroShot.presentation,
        "word_perplexity": shown(
            "Perplexity of last words", "exp of the mean NLL per word; lower is better"
        ),
    }
    task = "lambada_openai"
    row = LambadaRow
    figures = {"acc": "task.{}.acc", "perplexity": "word_perplexity.{}"}  # per word
