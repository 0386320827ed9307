"""Run models over the rows of texts, and compute the token scores that metrics read."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.batches import token_rows
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.passes.states import Keep, Spill, SpilledStates
from layerwright.tasks.passes.stream import Stream, run_rows

LOGIT_BYTES = 25_000_000  # limit of the fp32 logits at a time; a comparison has seven such tensors


@dataclass(frozen=True)
class TextPass:
    """A forward pass over rows of a text; each arm runs it once for all metrics.

    Attributes:
        divergence: whether the other arms are compared with the base, token by token. Passes that
            differ only in this are equal, because a single pass serves both.
    """

    text: str
    rows: int
    row_tokens: int
    divergence: bool = field(default=False, compare=False)

    @property
    def tokens(self) -> int:
        return self.rows * self.row_tokens


class Texts:
    """Texts by name; tokenized once, and cut into the same rows for every arm.

    Args:
        folders: the tree of each text, with ``documents.jsonl``.
        tokenizer: loads the base's tokenizer, which all arms use.
    """

    def __init__(
        self, folders: Mapping[str, Path], tokenizer: Callable[[], PreTrainedTokenizerBase]
    ) -> None:
        self.folders = folders
        self._load_tokenizer = tokenizer
        self._rows: dict[TextPass, Tensor] = {}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self._load_tokenizer()

    def rows(self, text_pass: TextPass) -> Tensor:
        """(rows, row_tokens) token ids.

        Raises:
            InputError: the text is too short.
        """
        if text_pass not in self._rows:
            text, size = text_pass.text, (text_pass.rows, text_pass.row_tokens)
            rows = token_rows(self.folders[text], self.tokenizer, *size, what=text)
            self._rows[text_pass] = rows
        return self._rows[text_pass]


@dataclass(frozen=True)
class TextScores:
    """Scores of the T-1 predicted positions of every row.

    Attributes:
        nll: (rows, T-1) fp32, nats.
        kl: (rows, T-1) fp32, KL(base || arm) in nats; None without a comparison with the base.
        agrees: (rows, T-1) bool, whether base and arm have the same most likely token; else None.
    """

    nll: np.ndarray
    kl: np.ndarray | None = None
    agrees: np.ndarray | None = None

    @classmethod
    def load(cls, path: Path) -> TextScores:
        with safe_open(path, "numpy") as file:
            names = set(file.keys()) & {"nll", "kl", "agrees"}
            return cls(**{name: file.get_tensor(name) for name in names})

    def equal_to_base(self) -> TextScores:
        """The scores of an arm whose model is the base: no divergence, full agreement."""
        agrees = np.ones(self.nll.shape, dtype=bool)
        return TextScores(self.nll, np.zeros_like(self.nll), agrees)


@torch.inference_mode()
def run_pass(
    model: HybridForCausalLM,
    rows: Tensor,
    path: Path,
    *,
    keep: Keep = tuple,
    keep_states: bool = False,
    base: tuple[Path, nn.Linear] | None = None,
    after: Callable[[int], None] = lambda rows: None,
) -> None:
    """Run every row once, and write the scores to ``path`` atomically.

    All rows run through a layer before the next layer runs. At most 25 MB of fp32 logits exist at a
    time. A comparison does not run the base again: the base's pass has saved its final hidden
    states, a file per row, and only the base's output head is applied to them.

    Args:
        rows: (rows, T) token ids; each row is a forward pass.
        keep: stores the rows between layers.
        keep_states: also save the final hidden states (1, T, D), for comparisons with this pass.
        base: the file of the base's pass over the same rows, and the base's output head.
        after: called with the number of rows that have run through a layer.
    """
    stream = Stream(model, rows, keep, at_once=1)
    layers = len(model.model.layers)
    outputs = run_rows(model, stream.states, stream.placement, 0, layers, keep, lambda *_: after(1))
    parts: list[dict[str, Tensor]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    states: Iterable[Tensor] = map(model.model.norm, outputs)
    if keep_states:
        states = Spill(path.parent / "unfinished")(states).move_to(path.with_suffix(".states"))
    saved = base and SpilledStates(base[0].with_suffix(".states"), device=str(model.device))
    for index, (ids, row) in enumerate(zip(stream.ids, states, strict=True)):
        compared = (saved[index][0, :-1], base[1]) if base and saved else None
        scores = _score(row[0, :-1], ids[0, 1:], model.lm_head, compared)
        parts.append({name: tensor.cpu() for name, tensor in scores.items()})
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    save_file({name: torch.stack([part[name] for part in parts]) for name in parts[0]}, partial)
    partial.replace(path)


def _score(
    states: Tensor, targets: Tensor, head: nn.Linear, base: tuple[Tensor, nn.Linear] | None
) -> dict[str, Tensor]:
    """Compute the scores of a row, (T-1) each, from states (T-1, D) and targets (T-1).

    Args:
        base: states (T-1, D) and head of the base, for a comparison.
    """
    chunks: dict[str, list[Tensor]] = {}
    at_once = max(1, LOGIT_BYTES // (4 * head.weight.shape[0]))
    for start in range(0, len(targets), at_once):
        part = slice(start, start + at_once)
        logits = head(states[part])
        scores = {"nll": target_nll(logits[None], targets[None, part])[0]}
        if base:
            base_logits = base[1](base[0][part])
            scores["kl"] = token_kl(base_logits, logits)
            scores["agrees"] = base_logits.argmax(-1) == logits.argmax(-1)
        for name, tensor in scores.items():
            chunks.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in chunks.items()}


def token_kl(base_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(base || other) = sum_v p(v) (log p(v) - log q(v)), (N,) fp32 in nats, of (N, V) logits."""
    log_p = F.log_softmax(base_logits.float(), dim=-1)
    log_q = F.log_softmax(logits.float(), dim=-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
