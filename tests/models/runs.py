"""Runs in processes of their own, that can be killed: started from a server that has imported everything already."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

TIMING = ("images_per_second", "waiting")


@dataclass(frozen=True)
class Pictures:
    """A map data set of smooth random pictures, each from its number."""

    count: int = 40
    size: int = 24
    channels: int = 3

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        generator = np.random.default_rng(index)
        coarse = generator.integers(0, 256, (4, 4, self.channels), dtype=np.uint8)
        return np.kron(coarse, np.ones((self.size // 4, self.size // 4, 1), np.uint8)), index % 2


def small(out: Path, **changes: Any) -> Any:
    """The config of a run that takes seconds, with every kind of chance in it."""
    from gmml_models.recipes.config import PretrainConfig

    numbers: dict[str, Any] = {
        "data": "pictures",
        "model": "vit_micro_patch4_32",
        "img_size": 16,
        "patch_size": 8,
        "epochs": 4,
        "batch_size": 8,
        "warmup_epochs": 1.0,
        "workers": 0,
        "cpu": True,
        "checkpoint_every": 1,
        "pictures_every": 2,
        "jitter_p": 0.5,
        "blur_p": 0.5,
    }
    return PretrainConfig(out=out, **{**numbers, **changes})


def work(config: Any, dataset: Pictures, log: Path, rank: int, world: int, port: int) -> None:
    """What a process of a run does."""
    import torch

    from gmml_models.recipes.pretraining import pretrain

    torch.set_num_threads(1)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    if world > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"})
    pretrain(config, dataset=dataset)
    if world > 1:
        torch.distributed.destroy_process_group()


def start(config: Any, dataset: Pictures, log: Path, world: int = 1) -> list[BaseProcess]:
    """Start the processes of a run."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gmml_models.recipes.pretraining", "gmml_models.objectives", "kornia", "tests.models.runs"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes: list[BaseProcess] = [
        context.Process(target=work, args=(config, dataset, log, rank, world, port), daemon=True) for rank in range(world)
    ]
    for process in processes:
        process.start()
    return processes


def finish(processes: list[BaseProcess], log: Path, seconds: float = 300) -> None:
    """Wait for a run, and insist that it went well."""
    for process in processes:
        process.join(seconds)
    codes = [process.exitcode for process in processes]
    assert codes == [0] * len(codes), f"exit codes {codes}:\n{log.read_text()[-3000:]}"


def kill(processes: list[BaseProcess]) -> bool:
    """SIGKILL to all; True if any was still at work."""
    alive = [process.is_alive() for process in processes]
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    return any(alive)


def interrupt_twice(processes: list[BaseProcess], chance: random.Random) -> bool:
    """Ctrl-C, and again within a tenth of a second; True if any was still at work."""
    alive = [process.is_alive() for process in processes]
    for pause in (chance.random() * 0.1, 0.0):
        for process in processes:
            if process.is_alive() and process.pid is not None:
                os.kill(process.pid, signal.SIGINT)
        time.sleep(pause)
    for process in processes:
        process.join(60)
    assert not any(process.is_alive() for process in processes)
    return any(alive)


def kill_somewhere(
    config: Any, dataset: Pictures, log: Path, chance: random.Random, world: int = 1, *, gently: bool = False
) -> bool:
    """Start a run and kill it, or press Ctrl-C twice: at any moment behind its first new step, or while it writes a checkpoint."""
    folder = config.out / "checkpoints"
    before = newest(folder)
    processes = start(config, dataset, log, world)
    writing = chance.random() < 0.5
    deadline = time.monotonic() + 120
    while all(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if writing and newest(folder) != before and any(folder.glob("*.part")):
            break
        if not writing and newest(folder) != before:
            time.sleep(chance.random() * 0.6)
            break
        time.sleep(0.001)
    return interrupt_twice(processes, chance) if gently else kill(processes)


def newest(folder: Path) -> str:
    """The name of the newest checkpoint, or nothing."""
    found = [path.name for path in folder.glob("step-*") if "." not in path.name] if folder.is_dir() else []
    return max(found, default="")


def result(out: Path) -> dict[str, Any]:
    """All that a run leaves behind and that must not depend on where it was stopped."""
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted((out / "weights").glob("*.safetensors"))}
    return {**hashes, "steps": rows(out / "steps.jsonl"), "epochs": rows(out / "epochs.jsonl")}


def rows(path: Path) -> list[Mapping[str, Any]]:
    """The rows of a file of JSON lines without what measures time."""
    told = map(json.loads, path.read_text().splitlines())
    return [{name: value for name, value in row.items() if name not in TIMING} for row in told]
