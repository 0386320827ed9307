"""Score the answers that prompts ask for: share of exact answers, and their log-probability."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from layerwright.tasks.evaluate.arms import Arms
from layerwright.tasks.evaluate.base import Figure, Item, scored
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.probes.recall import RecallPrompt, key_scores


def answer_figures(
    arms: Arms,
    exact: str,
    log_prob: str,
    options: object,
    prompts: Sequence[RecallPrompt],
    *,
    what: str,
    item: str,
    answer: str,
    detail: str,
    slices: Sequence[str] | None = None,
    words: Callable[[RecallPrompt, list[int]], Any] = lambda prompt, likeliest: None,
) -> Iterator[Figure]:
    """Yield the figures ``exact`` (share) and ``log_prob`` (nats per answer token) of each arm.

    Args:
        options: everything that the prompts depend on.
        what, item, answer: names for the progress bar, the items and messages.
        words: the words to keep of a prompt and the likeliest answer tokens.
    """
    for arm in arms.names:
        name = exact.partition(".")[0]
        scores = arms.item_results(arm, name, options, prompts, _scores, what=f"{arm}: {what}")
        invalid = sum(not math.isfinite(p) for p, _, _ in scores)
        figure = partial(
            scored,
            higher_is_better=True,
            detail=detail,
            not_finite=f"the {answer}'s log-probability is not finite on {invalid} of "
            f"{len(scores)} {item}s",
        )
        rights, log_probs = [], []
        for index, (prompt, score) in enumerate(zip(prompts, scores, strict=True)):
            (value, right, tokens), place = score, slices[index] if slices else ""
            id, share = f"{item} {index}", right if math.isfinite(value) else value
            rights.append(Item(id, share, slice=place, words=words(prompt, tokens)))
            log_probs.append(Item(id, value, slice=place))
        yield figure(exact, arm, rights, "share", arms.seed_of(exact))
        yield figure(log_prob, arm, log_probs, "nats", arms.seed_of(log_prob))


def _scores(
    model: HybridForCausalLM, prompts: Iterable[RecallPrompt]
) -> Iterator[tuple[float, bool, tuple[int, ...]]]:
    for prompt in prompts:
        [score] = key_scores(model, [prompt])
        yield score.log_prob, score.exact, score.likeliest
