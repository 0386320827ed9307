"""Generate texts with every arm, and measure their length and repetition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm, Presentation
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.continuation import Continuation, continuations

NGRAM = 4  # tokens
# how reports show the figures of generated texts
PRESENTATION = {
    "generation": Presentation(
        label="Generation",
        part="quality",
        help="share of right answers, or overlap with the reference",
    ),
    "length_ratio": Presentation(
        label="Length of the texts",
        part="quality",
        help="tokens divided by the base's",
        reference=1.0,
    ),
    "repetition": Presentation(
        label="Repetition", part="quality", help="share of repeated n-grams; lower is better"
    ),
}
PROMPT_END = 400  # the last characters of a prompt, stored with its result


def generate(
    arms: Arms,
    name: str,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[str] = (),
    at_once: int,
) -> dict[Arm, list[Continuation]]:
    """Continue every prompt greedily with every arm; each text is saved at once.

    Args:
        name: name of the prompts, for the progress bar.
        prompts: token ids of each prompt.
        max_new_tokens: largest number of generated tokens.
        stops: strings that end a text, as in `continuations`.
        at_once: prompts of a batch; fewer if memory does not suffice.

    Returns:
        The continuations of each arm, in the order of the prompts.
    """
    # longest prompts first: a batch has similar lengths, and a lack of memory shows at the start
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    compute = partial(
        _continue,
        tokenizer=arms.texts.tokenizer,
        max_new_tokens=max_new_tokens,
        stops=stops,
        at_once=at_once,
    )
    options = [identity([list(p) for p in prompts]), max_new_tokens, list(stops), at_once]
    texts: dict[Arm, list[Continuation]] = {}
    for arm in arms.names:
        items = [prompts[index] for index in order]
        results = arms.item_results(arm, "written", options, items, compute, what=f"{arm}: {name}")
        by_index = dict(zip(order, results, strict=True))
        texts[arm] = [
            Continuation(text, tuple(tokens))
            for text, tokens in (by_index[index] for index in range(len(prompts)))
        ]
    return texts


def _continue(
    model: HybridForCausalLM, prompts: Sequence[Sequence[int]], **options: Any
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for continuation in continuations(model, prompts=prompts, **options):
        yield continuation.text, continuation.tokens


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
        yield scored(
            f"length_ratio.{name}",
            arm,
            ratios,
            unit="ratio",
            higher_is_better=False,
            seed=arms.seed_of(f"length_ratio.{name}"),
            detail=f"{total:,} tokens, {base:,} by the base",
        )
        yield scored(
            f"repetition.{name}",
            arm,
            [Item(f"item {i}", repetition(text.tokens)) for i, text in enumerate(own)],
            unit="share",
            higher_is_better=False,
            seed=arms.seed_of(f"repetition.{name}"),
            detail=f"n-grams of {NGRAM} tokens",
        )


def repetition(tokens: Sequence[int]) -> float:
    """1 - distinct n-grams / all n-grams; 0 for a text without n-grams."""
    grams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
