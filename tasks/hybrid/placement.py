"""Positions, masks and rotary tables of the tokens in one forward pass, computed once.

Shapes: B batch, T new tokens, K keys (cached and new), R is B or 1, d head size.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Placement:
    """Positions of the new tokens and of the tokens before them.

    Attributes:
        positions: absolute positions of the new tokens, int64, -1 for padding; one row if every row
            has the same positions without padding.
        rotary: cos and sin tables (R, T, d) at those positions.
        past_tokens: slots that the cache has seen before this pass.
        past_positions: their positions; None if they are 0 .. past_tokens - 1 in every row.
        contiguous: no row has padding: masks need no positions, and a single query needs no mask.
        rotary_at: maps any positions (R, N) int64 to cos and sin tables (R, N, d).
    """

    positions: Tensor
    rotary: tuple[Tensor, Tensor]
    past_tokens: int
    past_positions: Tensor | None
    contiguous: bool
    rotary_at: Callable[[Tensor], tuple[Tensor, Tensor]]

    @property
    def stored_positions(self) -> Tensor | None:
        """Positions that a cache must store with new keys; None if they follow from the count."""
        return None if self.contiguous else self.positions

    @cached_property
    def key_positions(self) -> Tensor:
        """Positions (R, K) of all slots, cached and new."""
        if self.past_positions is not None:
            return torch.cat([self.past_positions, self.positions], dim=1)
        past = torch.arange(self.past_tokens, device=self.positions.device)
        return torch.cat([past.expand(len(self.positions), -1), self.positions], dim=1)

    @cached_property
    def causal_mask(self) -> Tensor | None:
        """Boolean mask (R, 1, T, K) of full attention; None if is_causal is enough."""
        if self.contiguous and (self.past_tokens == 0 or self.positions.shape[1] == 1):
            return None
        queries, keys = self.positions[:, None, :, None], self.key_positions[:, None, None, :]
        visible = (keys >= 0) & (keys <= queries)
        # A softmax over no key is NaN, so a padding query attends to all keys.
        return visible | (queries < 0)

    def to(self, device: torch.device, non_blocking: bool = False) -> "Placement":
        """The placement on another device; accelerate calls this between layers."""
        if self.positions.device == torch.device(device):
            return self
        tensors = self.positions, self.past_positions, *self.rotary
        moved: Any = (x if x is None else x.to(device, non_blocking=non_blocking) for x in tensors)
        positions, past, cos, sin = moved
        return replace(self, positions=positions, past_positions=past, rotary=(cos, sin))


def place_tokens(
    batch: int,
    tokens: int,
    device: torch.device,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    past_tokens: int = 0,
    past_positions: Tensor | None = None,
) -> tuple[Tensor, bool]:
    """Positions of the new tokens, and whether they are contiguous (see `Placement`).

    Args:
        attention_mask, position_ids: as in `HybridModel.place`.
        past_tokens, past_positions: as in `Placement`.

    Returns:
        positions (R, T) with -1 for padding, and the flag.

    Raises:
        ValueError: the mask is not 2-D, has the wrong width or contradicts earlier padding; or the
            positions of a row do not ascend.
    """
    expected_1T = torch.arange(past_tokens, past_tokens + tokens, device=device)[None]
    if attention_mask is not None:
        if attention_mask.shape != (batch, past_tokens + tokens):
            raise ValueError(
                f"attention_mask must have shape {(batch, past_tokens + tokens)} (all slots seen "
                f"so far and the new tokens), got {tuple(attention_mask.shape)}"
            )
        attention_mask = attention_mask.to(device).bool()
        earlier = attention_mask[:, :past_tokens]
        if not (earlier.all() if past_positions is None else earlier.equal(past_positions >= 0)):
            raise ValueError("attention_mask contradicts the padding of the tokens in the cache")
        attention_mask = attention_mask[:, past_tokens:]
        if attention_mask.all():
            attention_mask = None
    if position_ids is not None:
        positions = position_ids.to(device).long()
        in_order = attention_mask is None and past_positions is None
        if in_order and (positions == expected_1T).all():
            return expected_1T, True
        positions = positions.expand(batch, tokens)
    elif attention_mask is None and past_positions is None:
        return expected_1T, True
    else:
        real = torch.ones(batch, tokens) if attention_mask is None else attention_mask
        last = past_tokens - 1 if past_positions is None else past_positions.amax(1, keepdim=True)
        positions = last + real.to(device).long().cumsum(1)
    if attention_mask is not None:
        positions = positions.masked_fill(~attention_mask, -1)
    if position_ids is not None and tokens > 1:
        earlier = positions.cummax(1).values[:, :-1]
        if ((positions[:, 1:] >= 0) & (positions[:, 1:] <= earlier)).any():
            packed = "several sequences packed in one row are not supported"
            raise ValueError(f"position_ids must ascend along each row: {packed}")
    return positions, False
