"""The processes that train together: a single process, or several that shard the models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from layerwright.tasks.context import Context
from layerwright.tasks.hybrid.modeling import HybridForCausalLM

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Team:
    """This process's view of the processes that train together.

    All processes must make the same calls in the same order; only rank 0 writes files.
    ``accelerator`` is None for a single process.
    """

    rank: int = 0
    size: int = 1
    accelerator: Accelerator | None = None

    @classmethod
    def of(cls, ctx: Context) -> Team:
        """The processes that share a step's work, which torch.distributed.run has started.
        Accelerate's FSDP2 gathers and frees the weights of a hybrid block together.
        """
        if ctx.processes == 1:
            return cls()
        from accelerate import Accelerator, FullyShardedDataParallelPlugin

        plugin = FullyShardedDataParallelPlugin(
            fsdp_version=2,
            auto_wrap_policy="transformer_based_wrap",
            transformer_cls_names_to_wrap=["HybridLayer"],
            reshard_after_forward=True,
            cpu_ram_efficient_loading=False,
        )
        accelerator = Accelerator(cpu=ctx.device == "cpu", fsdp_plugin=plugin)
        # accelerate accepts the plugin only on accelerators, but torch's FSDP2 also shards on gloo
        accelerator.state.fsdp_plugin = plugin
        return cls(accelerator.process_index, accelerator.num_processes, accelerator)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def load_device(self, device: str) -> str:
        """Device to load models on: the CPU for sharding, as a model may not fit a single GPU."""
        return device if self.size == 1 else "cpu"

    def shard(self, model: HybridForCausalLM) -> None:
        """Shard a model's weights over the processes, in place; each process has the whole head."""
        if self.accelerator is None:
            return
        from accelerate.utils.fsdp_utils import fsdp2_prepare_model
        from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

        # untie the head, or the embedding could not be sharded; both are frozen, so they stay equal
        model.lm_head.weight = nn.Parameter(model.lm_head.weight.detach().clone(), False)
        fsdp2_prepare_model(self.accelerator, model.model)
        for layer in model.model.layers:
            register_fsdp_forward_method(layer, "mixed")
        with torch.no_grad():  # FSDP decides in the first pass which module is the root
            model.model(input_ids=torch.zeros(1, 1, dtype=torch.long, device=model.device))
        for module in model.modules():
            if isinstance(module, FSDPModule):  # else the final norm would stay gathered
                module.reshard()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Sum each value over all processes."""
        if self.accelerator is None:
            return list(values)
        device = self.accelerator.device
        total = torch.tensor(list(values), dtype=torch.float64, device=device)
        torch.distributed.all_reduce(total)
        return total.tolist()

    def wait(self) -> None:
        """Wait until all processes have made this call."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a tensor that may be sharded."""
    tensor = tensor.detach()
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def sharded_like(value: Tensor, other: Tensor) -> Tensor:
    """Move a full tensor to another tensor's device, and shard it the same way."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    value = value.to(other.device)
    if not isinstance(other.data, DTensor):
        return value
    return distribute_tensor(value, other.data.device_mesh, other.data.placements)
