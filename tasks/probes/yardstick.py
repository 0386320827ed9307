"""Measures a model's loss against its base: language on rows of text, recall on generated prompts.

Shapes: B rows in a batch, T tokens a row, V vocabulary.
"""

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

# KL uses every fourth token, to store fewer distributions of the base: 100 MB for 2 x 1,024 tokens
# and a vocabulary of 49 K
KL_EVERY = 4


class Figures(Contract):
    """Results of one model.

    Attributes:
        nll: mean negative log-likelihood per predicted token, in nats.
        kl: mean KL(base || model) per token, in nats.
        log_prob: mean log-probability per answer token, by probe.
        exact: share of answers that greedy decoding would give, by probe.
    """

    nll: float
    kl: float
    log_prob: dict[str, float]
    exact: dict[str, float]


class Yardstick:
    """Rows of text and recall prompts, with the base's results on them.

    Args:
        model: the unconverted base; not kept.
        rows: (R, T) token ids.
        probes: prompts by probe name, all of one length; may be empty.
        keep: stores hidden states between layers, and the base's distributions.
    """

    def __init__(
        self,
        model: HybridForCausalLM,
        rows: Tensor,
        probes: Mapping[str, Sequence[RecallPrompt]],
        keep: Keep = tuple,
    ) -> None:
        self.rows, self.keep = rows, keep
        self.prompts = [(name, prompt) for name, group in probes.items() for prompt in group]
        self._log_probs: States | None = None  # of the base, per batch
        with torch.no_grad():
            self.base = self.figures(self.streams(model), 0)

    def streams(self, model: HybridForCausalLM) -> list[Stream]:
        """Streams of text and recall prompts at the first layer of a model."""
        prompts = [prompt.ids for _, prompt in self.prompts]
        rows = [self.rows, *([torch.stack(prompts)] if prompts else [])]
        return [Stream(model, ids, self.keep) for ids in rows]

    @torch.no_grad()
    def figures(self, streams: Sequence[Stream], first: int) -> Figures:
        """Results of the model in its current form; layers ``first`` and above are run."""
        text, *recall = streams
        nll = []

        def language() -> Iterator[Tensor]:
            for ids, logits in text.logits(first):
                nll.append(token_nll(logits, ids).double().mean(1))
                # (B, ceil((T - 1) / KL_EVERY), V) fp32
                yield F.log_softmax(logits[:, :-1:KL_EVERY].float(), dim=-1)

        log_qs: Iterable[Tensor] = language()
        if self._log_probs is None:  # the base, which is measured first
            log_qs = self._log_probs = self.keep(log_qs)
        kl = [
            F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1).double()
            for log_q, log_p in zip(log_qs, self._log_probs, strict=True)
        ]
        scores: dict[str, list[Any]] = {}
        pending = list(self.prompts)
        for stream in recall:
            longest = last_logits([prompt for _, prompt in self.prompts])
            for ids, logits in stream.logits(first, longest):
                group, pending = pending[: len(ids)], pending[len(ids) :]
                key_scores = score_keys(logits, [prompt for _, prompt in group])
                for (name, _), score in zip(group, key_scores, strict=True):
                    scores.setdefault(name, []).append(score)
        return Figures(
            nll=torch.cat(nll).mean().item(),
            kl=torch.cat([part.flatten() for part in kl]).mean().clamp_min(0).item(),
            log_prob={name: sum(s.log_prob for s in of) / len(of) for name, of in scores.items()},
            exact={name: sum(s.exact for s in of) / len(of) for name, of in scores.items()},
        )

    def damage(self, figures: Figures) -> dict[str, Any]:
        """The fields of a Damage, except for what was converted."""
        probes = {name: self.base.log_prob[name] - p for name, p in figures.log_prob.items()}
        return {
            "language_nats": figures.nll - self.base.nll,
            "kl_nats": figures.kl,
            "probes": probes,
            "recall_nats": sum(probes.values()) / len(probes) if probes else 0.0,
        }
