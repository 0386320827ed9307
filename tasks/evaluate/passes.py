"""One forward of one model over rows of a text, and all token scores that metrics read from it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from layerwright.tasks.hybrid.modeling import HybridForCausalLM
from layerwright.tasks.passes.likelihood import target_nll
from layerwright.tasks.passes.states import Keep, Spill, SpilledStates
from layerwright.tasks.passes.stream import Stream, run_rows

LOGIT_BYTES = 25_000_000  # bounds the fp32 logits at a time; a comparison makes seven such tensors


@dataclass(frozen=True)
class TextScores:
    """Scores of the T-1 predicted positions of every row.

    Attributes:
        nll: (rows, T-1) fp32, nats.
        kl: (rows, T-1) fp32, KL(base || arm) in nats; None where there was no comparison.
        agrees: (rows, T-1) bool, base and arm have the same most likely token.
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
        """The scores of an arm that is the base itself."""
        same = np.ones(self.nll.shape, dtype=bool)
        return TextScores(self.nll, np.zeros_like(self.nll), same)


@torch.inference_mode()
def run_pass(
    model: HybridForCausalLM,
    rows: Tensor,
    path: Path,
    *,
    keep: Keep = tuple,
    keep_states: bool = False,
    base: tuple[Path, nn.Module] | None = None,
    after: Callable[[int], None] = lambda rows: None,
) -> None:
    """Run every row once and write the scores to ``path``, whole or not at all.

    All rows pass one layer before the next. No more logits than 25 MB in fp32 are ever made at
    once. The base is not run again for a comparison: its final states are kept, one row a file,
    and only its output head is applied to them.

    Args:
        rows: (rows, T) token ids, one row a forward.
        keep: where the rows wait between layers.
        keep_states: also write the final states (1, T, D), for others to compare with.
        base: the file of the base's pass over the same rows, and the base's output head.
        after: called with the number of rows that have passed a layer.
    """
    stream = Stream(model, rows, keep, at_once=1)
    layers = len(model.model.layers)
    outputs = run_rows(model, stream.states, stream.placement, 0, layers, keep, lambda *_: after(1))
    parts: list[dict[str, Tensor]] = []
    path.parent.mkdir(parents=True, exist_ok=True)
    states: Iterable[Tensor] = map(model.model.norm, outputs)
    if keep_states:
        states = Spill(path.parent / "unfinished")(states).move_to(_states_of(path))
    base_states = SpilledStates(_states_of(base[0]), device=str(model.device)) if base else None
    for index, (ids, row) in enumerate(zip(stream.ids, states, strict=True)):
        of_base = base_states[index][0, :-1] if base_states else None
        scores = _score(row[0, :-1], ids[0, 1:], model.lm_head, of_base, base and base[1])
        parts.append({name: tensor.cpu() for name, tensor in scores.items()})
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    save_file({name: torch.stack([part[name] for part in parts]) for name in parts[0]}, partial)
    partial.replace(path)


def _states_of(path: Path) -> Path:
    return path.with_suffix(".states")


def _score(
    states: Tensor,
    targets: Tensor,
    head: nn.Module,
    base_states: Tensor | None,
    base_head: nn.Module | None,
) -> dict[str, Tensor]:
    """Scores of one row: states (T-1, D), targets (T-1) -> each (T-1)."""
    chunks: dict[str, list[Tensor]] = {}
    at_once = max(1, LOGIT_BYTES // (4 * head.weight.shape[0]))
    for start in range(0, len(targets), at_once):
        part = slice(start, start + at_once)
        logits = head(states[part])
        found = {"nll": target_nll(logits[None], targets[None, part])[0]}
        if base_states is not None and base_head is not None:
            base_logits = base_head(base_states[part])
            found["kl"] = token_kl(base_logits, logits)
            found["agrees"] = base_logits.argmax(-1) == logits.argmax(-1)
        for name, tensor in found.items():
            chunks.setdefault(name, []).append(tensor)
    return {name: torch.cat(tensors) for name, tensors in chunks.items()}


def token_kl(base_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(base || other) = sum_v p(v) (log p(v) - log q(v)) of each position.

    Args:
        base_logits, logits: (N, V), any float dtype.

    Returns:
        (N,) fp32, nats.
    """
    log_p = F.log_softmax(base_logits.float(), dim=-1)
    log_q = F.log_softmax(logits.float(), dim=-1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)
