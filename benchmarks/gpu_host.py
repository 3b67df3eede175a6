"""What a call of the kernels costs the host, on any machine: everything is real but the driver's own call.

``python -m benchmarks.gpu_host`` prints microseconds of the processor for `sample`, `apply` and a call on 256 x 3 x 224 x 224,
minima of many, and how many kernels and operations of torch they launch. For another commit give its folder:
``python -m benchmarks.gpu_host ../other``, which is measured in turn with this one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHAPE, ROUNDS, TURNS = (256, 3, 224, 224), 200, 3
KNOWN = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
LARGE = 1 << 16  # numbers, from which on memory is kept, as a caching allocator keeps it


class Driver:
    """Stands for a GPU of compute capability 9.0."""

    def get_current_target(self) -> Any:
        """What Triton compiles for."""
        from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped, unused-ignore]

        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        """The first one."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """The default one."""
        del device
        return 0

    def get_active_torch_device(self) -> torch.device:
        """Where tensors are."""
        return torch.device("cpu")


def without_launches() -> list[str]:
    """From now on kernels are bound and looked up as ever, but neither compiled nor launched; the names of those that would be."""
    from triton.runtime import driver, jit  # type: ignore[import-untyped, unused-ignore]

    launched: list[str] = []
    driver.set_active(Driver())

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        del grid, warmup
        kernel_keys, binder = self.device_caches[0][1], self.device_caches[0][4]
        bound, specialization, options = binder(*args, **kwargs, debug=False)
        jit.compute_cache_key(kernel_keys, specialization, options)
        list(bound.values())
        launched.append(self.fn.__name__)

    jit.JITFunction.run = run
    return launched


def keep_memory() -> None:
    """Large tensors are views of memory that is kept: on a GPU an allocator has it at hand."""
    kept: dict[tuple[tuple[int, ...], torch.dtype], Tensor] = {}
    empty, like, new = torch.empty, torch.empty_like, Tensor.new_empty

    def at_hand(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if (shape, dtype) not in kept:
            kept[shape, dtype] = empty(shape, dtype=dtype)
        return kept[shape, dtype].view(shape)

    def empty_of(*shape: Any, dtype: torch.dtype = torch.float32, device: Any = None) -> Tensor:
        size = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        number = 1
        for length in size:
            number *= length
        return at_hand(size, dtype) if number > LARGE else empty(size, dtype=dtype, device=device)

    def empty_like(one: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return at_hand(tuple(one.shape), dtype or one.dtype) if one.numel() > LARGE else like(one, dtype=dtype)

    def new_empty(one: Tensor, shape: Any, dtype: torch.dtype | None = None) -> Tensor:
        return at_hand(tuple(shape), dtype or one.dtype) if one.numel() > LARGE else new(one, shape, dtype=dtype)

    torch.empty, torch.empty_like, Tensor.new_empty = empty_of, empty_like, new_empty  # type: ignore[assignment, method-assign]


def measure() -> dict[str, Any]:
    """Of the package that is imported."""
    torch.set_num_threads(1)
    launched = without_launches()
    import gmml_aug as ga
    from gmml_aug.backends.triton import lower, paint

    for module in (lower, paint):
        setattr(module, "runs_on", lambda device: True)  # noqa: B010 - no public name
    keep_memory()
    corrupt = ga.presets.gmml(values=KNOWN)
    images, keys = torch.empty(*SHAPE), ga.keys(0, 0, range(SHAPE[0]))
    plan = corrupt.sample(SHAPE, keys=keys, backend="fused")
    parts: dict[str, Callable[[], Any]] = {
        "sample": lambda: corrupt.sample(SHAPE, keys=keys, backend="fused"),
        "apply": lambda: corrupt.apply(images, plan, backend="fused"),
        "call": lambda: corrupt(images, keys=keys, backend="fused"),
    }
    found: dict[str, Any] = {}
    for name, part in parts.items():
        part()
        launched.clear()
        part()
        kernels, least = list(launched), float("inf")
        for _ in range(ROUNDS):
            began = time.thread_time()
            part()
            least = min(least, time.thread_time() - began)
        found[name] = {"us": round(least * 1e6, 1), "kernels": kernels}
    return found


def main() -> None:
    """This folder, and another one, in turn, each in processes of its own."""
    if sys.argv[1:] == ["--measure"]:
        print(json.dumps(measure()))
        return
    folders = [Path.cwd(), *map(Path, sys.argv[1:])]
    best: dict[str, dict[str, Any]] = {}
    for _ in range(TURNS):
        for folder in folders:
            words = [sys.executable, str(Path(__file__).resolve()), "--measure"]
            done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(folder)}, check=True, capture_output=True, text=True)
            for part, row in json.loads(done.stdout).items():
                before = best.setdefault(str(folder.resolve().name), {}).setdefault(part, row)
                before["us"] = min(before["us"], row["us"])
    print(json.dumps(best, indent=1))


if __name__ == "__main__":
    main()
