"""Devices, processes and precision of a run: torch.distributed, DistributedDataParallel and FSDP 2."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from gmml_models.errors import UsageError
from gmml_models.train.config import TrainConfig


@final
@dataclass(frozen=True, kw_only=True)
class Parallel:
    """The device of a process, and the other processes of the run.

    Attributes:
        device: the device of this process.
        rank: the number of this process.
        world: number of processes.
        autocast: a context for the run's precision, in which the networks run.
        fsdp: True if parameters and optimiser are sharded.
    """

    device: torch.device
    rank: int
    world: int
    autocast: Callable[[], AbstractContextManager[None]]
    fsdp: bool

    @property
    def first(self) -> bool:
        """True on the process that writes files and prints."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        if self.world > 1:
            distributed.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)

    @contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Run the body on the first process, and then on the others, so that one process creates files that all use."""
        if not self.first:
            self.wait()
        yield
        if self.first:
            self.wait()

    def wrap(
        self, model: nn.Module, make: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], AbstractContextManager[None]]]:
        """Move a model to its device, replicated or sharded over the processes, and create its optimiser.

        Args:
            model: the model, which is moved in place, and under FSDP also changed in place.
            make: a function that creates the optimiser of a model.

        Returns:
            The module to call, its optimiser, and a context in which gradients are accumulated without being exchanged.
        """
        model.to(self.device)
        if self.world == 1:
            return model, make(model), nullcontext
        if self.fsdp:
            return self._sharded(model, make)
        if self.device.type == "cuda":
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # it has no CPU version: there, each process has its own
        # the losses gather what they compare, and centres move once a step, alike everywhere: nothing to broadcast
        known = inspect.signature(DistributedDataParallel.__init__).parameters
        quiet: dict[str, Any] = {"forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers": False}
        replica = DistributedDataParallel(model, device_ids=[self.device] if self.device.type == "cuda" else None, **quiet)
        return replica, make(replica), replica.no_sync

    @staticmethod
    def _sharded(
        model: nn.Module, make: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer, Callable[[], AbstractContextManager[None]]]:
        """Shard parameters, gradients and optimiser state, block by block."""
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

        return sharded, make(sharded), holding


def start_processes(config: TrainConfig) -> Parallel:
    """Set up the processes that torchrun started (one without torchrun), their devices, and the config's precision.

    Raises:
        UsageError: ``config.fsdp`` with a single process.
    """
    gpu = torch.cuda.is_available() and not config.cpu
    rank, world, local = (int(os.environ.get(name, 0)) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    world = max(world, 1)
    if config.fsdp and world == 1:
        raise UsageError(
            "gmml: --fsdp shards over several processes, but there is only one. Start the run with torchrun, or leave --fsdp out."
        )
    device = torch.device("cuda", local) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    if world > 1 and not distributed.is_initialized():
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo")
    bf16 = config.precision == "bf16" or (config.precision == "auto" and gpu and torch.cuda.is_bf16_supported())
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if bf16 else nullcontext
    return Parallel(device=device, rank=rank, world=world, autocast=autocast, fsdp=config.fsdp)
