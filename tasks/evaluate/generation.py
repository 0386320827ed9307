"""What the arms write behind prompts, and the figures that every generation metric gives of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from layerwright.tasks.contracts.base import identity
from layerwright.tasks.contracts.evaluation import Arm
from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure
from layerwright.tasks.evaluate.scoring import Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.continuation import Continuation, continuations

NGRAM = 4  # tokens
PROMPT_END = 400  # characters of a prompt, kept with its result


def written(
    arms: Arms,
    name: str,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stops: Sequence[str] = (),
    at_once: int,
) -> dict[Arm, list[Continuation]]:
    """What every arm writes behind each prompt, greedily; each text is kept when it is there.

    Args:
        name: of the prompts, for the bar.
        prompts: token ids.
        stops: as in `continuations`.
        at_once: prompts in a batch, fewer where memory does not hold them.

    Returns:
        One for each prompt, in order, by arm.
    """
    # the longest first: similar lengths share a batch, and what does not fit is found out at once
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    write = partial(
        _write,
        tokenizer=arms.texts.tokenizer,
        max_new_tokens=max_new_tokens,
        stops=stops,
        at_once=at_once,
    )
    options = [identity([list(p) for p in prompts]), max_new_tokens, list(stops), at_once]
    found: dict[Arm, list[Continuation]] = {}
    for arm in arms.names:
        wanted = [prompts[index] for index in order]
        kept = arms.remembered(arm, "written", options, wanted, write, what=f"{arm}: {name}")
        by_index = dict(zip(order, kept, strict=True))
        found[arm] = [
            Continuation(text, tuple(tokens))
            for text, tokens in (by_index[index] for index in range(len(prompts)))
        ]
    return found


def _write(
    model: HybridForCausalLM, prompts: Sequence[Sequence[int]], **options: object
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for one in continuations(model, prompts=prompts, **options):  # type: ignore[arg-type]
        yield one.text, one.tokens


def length_and_repetition(
    arms: Arms, name: str, texts: Mapping[Arm, Sequence[Continuation]]
) -> Iterator[Figure]:
    """``length_ratio.<name>``: an arm's tokens over the base's; ``repetition.<name>``: the mean
    share of a text's n-grams of 4 tokens that stood in it before (seq-rep-4, arXiv 1908.04319).

    The token that ends a text counts, so no text has none.
    """
    for arm, mine in texts.items():
        counts = [(len(m.tokens), len(b.tokens)) for m, b in zip(mine, texts["base"], strict=True)]
        ratios = [
            Item(f"item {i}", m / b, weight=float(b)) for i, (m, b) in enumerate(counts)
        ]  # whose mean weighted by the base's tokens is the ratio of the sums
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
            [Item(f"item {i}", repetition(one.tokens)) for i, one in enumerate(mine)],
            unit="share",
            higher_is_better=False,
            seed=arms.seed_of(f"repetition.{name}"),
            detail=f"n-grams of {NGRAM} tokens",
        )


def repetition(tokens: Sequence[int]) -> float:
    """1 - distinct / all n-grams; 0 for a text without any."""
    grams = [tuple(tokens[i : i + NGRAM]) for i in range(len(tokens) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
