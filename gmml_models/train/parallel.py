"""Devices, processes and precision of a run: accelerate, and torch's own sharding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gmml_models.errors import UsageError
from gmml_models.train.config import TrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


class Distributed(NamedTuple):
    """A model on its device and its processes.

    Attributes:
        model: what is called.
        optimizer: of its parameters.
        holding: a context in which gradients are added up, not exchanged.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    holding: Callable[[], Any]


def make_accelerator(config: TrainConfig) -> Accelerator:
    """Devices, processes and precision, as torchrun and the config say.

    Raises:
        UsageError: accelerate is missing.
    """
    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise UsageError("gmml: training needs accelerate. Install it: pip install 'gmml[train]'.") from error
    AcceleratorState._reset_state()  # a second run in one process may want another precision
    gpu = torch.cuda.is_available() and not config.cpu
    bf16 = config.precision == "bf16" or (config.precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    return Accelerator(cpu=not gpu, mixed_precision="bf16" if bf16 else "no")


def distribute(
    accelerator: Accelerator, model: nn.Module, make: Callable[[nn.Module], torch.optim.Optimizer], *, fsdp: bool
) -> Distributed:
    """Put a model on its device, replicated or sharded over the processes, and make its optimiser.

    Args:
        accelerator: from `make_accelerator`.
        model: moved, and under FSDP changed, in place.
        make: the optimiser of a model.
        fsdp: shard parameters, gradients and optimiser, block by block (FSDP 2).

    Raises:
        UsageError: ``fsdp`` with a single process.
    """
    model.to(accelerator.device)
    if not fsdp and accelerator.num_processes == 1:
        return Distributed(model, make(model), nullcontext)
    if not fsdp:
        if accelerator.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # it has no CPU version: there, each process has its own
        # the losses gather what they compare, and centres move once a step, alike everywhere: nothing to broadcast
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        quiet: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        device = accelerator.device
        replica = DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None, **quiet)
        return Distributed(replica, make(model), replica.no_sync)
    if accelerator.num_processes == 1:
        raise UsageError("gmml: --fsdp shards over several processes, but there is one. Start it with torchrun, or leave it out.")
    # accelerate's own needs a GPU, and without one it replicates and says nothing; torch's works everywhere
    from timm.models.vision_transformer import Block
    from torch.distributed.fsdp import fully_shard

    for module in list(model.modules()):
        if isinstance(module, Block):
            fully_shard(module)
    sharded: Any = fully_shard(model)

    @contextmanager
    def holding() -> Iterator[None]:
        sharded.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            sharded.set_requires_gradient_sync(True)

    return Distributed(sharded, make(sharded), holding)
