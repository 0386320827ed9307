"""What a model has lost against its base: language on rows of text, recall on generated prompts.

Shapes: B rows in a batch, T tokens a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from layerwright.tasks.contracts.base import Contract
from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.likelihood import token_nll
from layerwright.tasks.passes.states import Keep, States
from layerwright.tasks.passes.stream import Stream
from layerwright.tasks.probes.recall import RecallPrompt, last_logits, score_keys

KL_EVERY = 4  # of the base's distributions this share is kept: 100 MB for 2 x 1,024 tokens of 49 K


class Figures(Contract):
    """``nll``: mean per predicted token. ``kl``: mean KL(base || model) per token. ``log_prob``:
    mean per answer token, ``exact``: share of answers that would be decoded, by recall probe."""

    nll: float
    kl: float
    log_prob: dict[str, float]
    exact: dict[str, float]


class Yardstick:
    """Rows of text and recall prompts, and what the base says to them.

    Args:
        model: the base, every layer as it was; not kept.
        rows: (R, T) token ids.
        probes: prompts by the probe's name, all of one length; no probe and no prompt is fine.
        keep: where states wait between layers, and what the base says meanwhile.
    """

    def __init__(
        self,
        model: HybridForCausalLM,
        rows: Tensor,
        probes: Mapping[str, Sequence[RecallPrompt]],
        keep: Keep = tuple,
    ) -> None:
        self.rows, self.keep = rows, keep
        self.prompts = [(name, prompt) for name, some in probes.items() for prompt in some]
        self._log_probs: States | None = None  # of the base, per batch
        with torch.no_grad():
            self.base = self.figures(self.streams(model), 0)

    def streams(self, model: HybridForCausalLM) -> list[Stream]:
        """Text and recall prompts at the bottom of a model."""
        found = [self.stream(model, self.rows)]
        if self.prompts:
            ids = torch.stack([prompt.ids for _, prompt in self.prompts])
            found.append(self.stream(model, ids))
        return found

    def stream(self, model: HybridForCausalLM, ids: Tensor) -> Stream:
        """Rows (R, T) at the bottom of a model."""
        return Stream(model, ids, self.keep)

    @torch.no_grad()
    def figures(self, streams: Sequence[Stream], first: int) -> Figures:
        """Of the model as it stands; layers ``first`` and above are run."""
        text, *recall = streams
        nll = []

        def said() -> Iterator[Tensor]:
            for ids, logits in text.logits(first):
                nll.append(token_nll(logits, ids).double().mean(1))
                yield _log_probs(logits)

        log_qs: Iterable[Tensor] = said()
        if self._log_probs is None:  # the base itself, the first model to be measured
            log_qs = self._log_probs = self.keep(log_qs)
        kl = [
            F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1).double()
            for log_q, log_p in zip(log_qs, self._log_probs, strict=True)
        ]
        scores: dict[str, list[Any]] = {}
        waiting = list(self.prompts)
        for stream in recall:
            longest = last_logits([prompt for _, prompt in self.prompts])
            for ids, logits in stream.logits(first, longest):
                some, waiting = waiting[: len(ids)], waiting[len(ids) :]
                found = score_keys(logits, [prompt for _, prompt in some])
                for (name, _), score in zip(some, found, strict=True):
                    scores.setdefault(name, []).append(score)
        return Figures(
            nll=torch.cat(nll).mean().item(),
            kl=torch.cat([part.flatten() for part in kl]).mean().clamp_min(0).item(),
            log_prob={name: sum(s.log_prob for s in of) / len(of) for name, of in scores.items()},
            exact={name: sum(s.exact for s in of) / len(of) for name, of in scores.items()},
        )

    def damage(self, found: Figures) -> dict[str, Any]:
        """The fields of a Damage, but for what was converted."""
        probes = {name: self.base.log_prob[name] - value for name, value in found.log_prob.items()}
        return {
            "language_nats": found.nll - self.base.nll,
            "kl_nats": found.kl,
            "probes": probes,
            "recall_nats": sum(probes.values()) / len(probes) if probes else 0.0,
        }


def _log_probs(logits: Tensor) -> Tensor:
    """(B, ceil((T - 1) / KL_EVERY), V) fp32 log-probabilities of every fourth predicted token."""
    return F.log_softmax(logits[:, :-1:KL_EVERY].float(), dim=-1)
