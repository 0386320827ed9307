"""The processes that train together: one, or several among which the models are sharded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from layerwright.tasks.hybrid.modeling import HybridForCausalLM

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Team:
    """This process among its kind. Every call is made by all of them, in the same order.

    Attributes:
        rank: of this process; 0 alone writes.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1
    accelerator: Accelerator | None = None

    @classmethod
    def join(cls, device: str) -> Team:
        """The team that torch.distributed.run started this process in: FSDP2 through accelerate.

        The unit that is gathered and freed as one is the hybrid block.
        """
        from accelerate import Accelerator, FullyShardedDataParallelPlugin

        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["HybridLayer"],
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
        accelerator = Accelerator(cpu=device == "cpu", fsdp_plugin=plugin)
        # accelerate takes a plugin for accelerators alone; torch's FSDP2 shards over gloo as well
        accelerator.state.fsdp_plugin = plugin
        return cls(accelerator.process_index, accelerator.num_processes, accelerator)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def loads_on(self, device: str) -> str:
        """Where a model is loaded: to be sharded it need not fit one device as a whole."""
        return device if self.size == 1 else "cpu"

    def shard(self, model: HybridForCausalLM) -> None:
        """Spread a model's weights over the processes, in place; the head stays with each."""
        if self.accelerator is None:
            return
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model
        from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

        # a tied head would keep the embedding from being sharded: it is frozen, so it may part
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone(), False)
        fsdp2_prepare_model(self.accelerator, model.model)
        for layer in model.model.layers:
            register_fsdp_forward_method(layer, "mixed")
        with torch.no_grad():  # the first pass, which says which unit is the root, goes through it
            model.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
        for module in model.modules():
            if isinstance(module, FSDPModule):  # the final norm would stay gathered
                module.reshard()

    def sum(self, values: Sequence[float]) -> list[float]:
        """The sum over all processes of each value."""
        if self.accelerator is None:
            return list(values)
        device = self.accelerator.device
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Until all have come here."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def whole(tensor: Tensor) -> Tensor:
    """A tensor that may be sharded, as a whole."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def like(value: Tensor, model_of: Tensor) -> Tensor:
    """A whole tensor, placed and sharded as another one is."""
    value = value.to(model_of.device)
    if not hasattr(model_of, "device_mesh"):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, model_of.device_mesh, model_of.placements)
