"""Generate texts with every arm, and measure their length and repetition."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.contracts.items import Words
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Item, scored, shown
from layerwright.tasks.offload.generation import encode
from layerwright.tasks.probes.continuation import Continuation, continuations

NGRAM = 4  # tokens
PROMPT_END = 400  # the last characters of a prompt, stored with its result
PRESENTATION = {
    "generation": shown("Generation", "share of right answers, or overlap with the reference"),
    "length_ratio": shown("Length of the texts", "tokens divided by the base's", reference=1.0),
    "repetition": shown("Repetition", "share of repeated n-grams; lower is better"),
}


def generate(
    arms: Arms,
    name: str,
    prompts: Sequence[str],
    *,
    chat: bool = False,
    max_new_tokens: int,
    stops: Sequence[str] = (),
    at_once: int,
) -> dict[Arm, list[Continuation]]:
    """Continue every prompt greedily with every arm, and save each text at once.

    Args:
        chat: whether each prompt is a user message for the tokenizer's chat template.
        max_new_tokens, stops: as in `continuations`.
        at_once: prompts of a batch; fewer if memory does not suffice.
    """
    tokenizer = arms.texts.tokenizer
    ids = [encode(tokenizer, prompt, chat)[0].tolist() for prompt in prompts]
    # longest prompts first: a batch has similar lengths, and a lack of memory shows at the start
    order = sorted(range(len(ids)), key=lambda index: -len(ids[index]))
    limits: dict[str, Any] = {"max_new_tokens": max_new_tokens, "stops": stops, "at_once": at_once}
    compute = partial(continuations, tokenizer=tokenizer, **limits)
    options = [identity(ids), max_new_tokens, list(stops), at_once]
    texts: dict[Arm, list[Continuation]] = {}
    for arm in arms.names:
        items = [ids[index] for index in order]
        results = arms.item_results(arm, "written", options, items, compute, what=f"{arm}: {name}")
        by_index = dict(zip(order, results, strict=True))
        texts[arm] = [Continuation(*by_index[index]) for index in range(len(ids))]
    return texts


def words(prompt: str, expected: str, said: str) -> Words:
    """The words of an item: the end of its prompt, the expected text and the arm's."""
    return Words(prompt=prompt[-PROMPT_END:], expected=expected.strip(), said=said.strip())


def length_and_repetition(
    arms: Arms, name: str, texts: Mapping[Arm, Sequence[Continuation]]
) -> Iterator[Figure]:
    """Measure the length of each arm's texts relative to the base's, and their repetition.

    - ``length_ratio.<name>``: an arm's tokens divided by the base's. The end-of-text token counts,
      so the base's count is never 0.
    - ``repetition.<name>``: mean share of a text's 4-grams of tokens that occurred earlier in the
      text (seq-rep-4, arXiv 1908.04319).
    """
    for arm, own in texts.items():
        counts = [(len(t.tokens), len(b.tokens)) for t, b in zip(own, texts["base"], strict=True)]
        # the mean of the ratios, weighted by the base's tokens, is the ratio of the sums
        ratios = [Item(f"item {i}", n / b, weight=float(b)) for i, (n, b) in enumerate(counts)]
        total, base = (sum(side) for side in zip(*counts, strict=True))
        shares = [Item(f"item {i}", repetition(text.tokens)) for i, text in enumerate(own)]
        for metric, items, unit, detail in (
            (f"length_ratio.{name}", ratios, "ratio", f"{total:,} tokens, {base:,} by the base"),
            (f"repetition.{name}", shares, "share", f"n-grams of {NGRAM} tokens"),
        ):
            yield scored(metric, arm, items, unit, arms.seed_of(metric), detail=detail)


def repetition(tokens: Sequence[int]) -> float:
    """1 - distinct n-grams / all n-grams; 0 for a text without n-grams."""
    grams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
