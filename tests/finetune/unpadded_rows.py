"""Training rows without padding, for tests."""

import torch

from layerwright.tasks.finetune.rows import Rows


def unpadded_rows(ids: torch.Tensor) -> Rows:
    """Rows in which every token except the first counts."""
    counted = torch.ones_like(ids, dtype=torch.bool)
    counted[:, 0] = False
    return Rows(ids, counted, torch.ones_like(counted))
