"""The compiled core: finding it, loading it, and calling it from several threads.

It is called through ctypes with the addresses of tensors, so one file per platform works with every version of Python and torch.
The threads share the images dynamically: a thread that has finished one image takes the next.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Final

import torch

from gmml_aug.backends.cpu.build import FOLDER, files, machine, sources_hash
from gmml_aug.backends.cpu.layout import STRUCTS

# their arguments, and what they return
FUNCTIONS: Final[dict[str, tuple[int, Any]]] = {
    "gmml_plan": (3, None),
    "gmml_paint": (3, None),
    "gmml_check": (2, ctypes.c_int64),
    "gmml_new_memory": (2, None),
    "gmml_plan_memory": (1, ctypes.c_int64),
    "gmml_paint_memory": (2, ctypes.c_int64),
    "gmml_image_memory": (1, ctypes.c_int64),
}

_LEVELS = {"AVX512": "v4", "AVX2": "v3"}  # by what torch finds; v2 on all other machines
_WORTH = 1e5  # nanoseconds of work for each thread
_KEPT_BYTES = 8 << 20  # of memory that a thread keeps for its next call
_LOCAL = threading.local()
_POOLS: dict[int, ThreadPoolExecutor] = {}  # by process: threads do not survive a fork


@cache
def library() -> Any:
    """Return the core for this machine, or a string that says why there is none."""
    level = _LEVELS.get(torch.backends.cpu.get_cpu_capability(), "v2")
    name = next(name for name in files() if machine() != "x86_64" or level in name)
    return load(Path(os.environ.get("GMML_CORE") or _installed(name) or FOLDER / name))


def _installed(name: str) -> Path | None:
    """The core of the installed package, if what was imported is a clone without one, as where Python is started in it."""
    if (FOLDER / name).is_file():
        return None
    try:
        path = Path(str(distribution("gmml").locate_file(f"gmml_aug/backends/cpu/core/{name}")))
    except PackageNotFoundError:
        return None
    return path if path.is_file() else None  # `load` refuses one of other sources


def load(path: Path) -> Any:
    """Load a core from its file, or return a string that says why it cannot be used."""
    again = "python -m gmml_aug.backends.cpu.build"
    if not path.is_file():
        return f"there is no compiled core for this machine. Install a C compiler (gcc or clang) and run {again}"
    try:
        core = ctypes.CDLL(str(path))
        sizes = (ctypes.c_int64 * len(STRUCTS)).in_dll(core, "gmml_sizes")
        sources = ctypes.c_uint64.in_dll(core, "gmml_sources")
    except (OSError, ValueError) as error:
        return f"the compiled core cannot be loaded ({error}). Run {again}"
    if list(sizes) != [ctypes.sizeof(struct) for struct in STRUCTS] or sources.value != sources_hash():
        return f"the compiled core was not built from the sources installed here. Run {again}"
    for name, (arguments, result) in FUNCTIONS.items():
        function = getattr(core, name)
        function.argtypes, function.restype = [ctypes.c_void_p] * arguments, result
    return core


def threads_for(work: float) -> int:
    """The number of threads that pays off for this much work, given in nanoseconds: waking a thread takes about ten thousand."""
    return max(min(torch.get_num_threads(), int(work / _WORTH)), 1)


def run(function: Any, about: int, call: array[int], memory: int, threads: int) -> None:
    """Call a function of the core from several threads, which share the work.

    Args:
        function: a function that takes its input struct, the call, and memory.
        about: the address of the function's input struct.
        call: the call.
        memory: the number of bytes that each thread needs for itself.
        threads: the number of threads.
    """
    address = call.buffer_info()[0]
    others = [_pool(threads - 1).submit(_work, function, about, address, memory) for _ in range(threads - 1)]
    try:
        _work(function, about, address, memory)
    finally:
        for other in others:
            other.result()


def _work(function: Any, about: int, address: int, memory: int) -> None:
    function(about, address, _memory(memory))


def _memory(count: int) -> int:
    """The address of ``size`` bytes of scratch memory, which the next call of this thread may overwrite."""
    block: torch.Tensor | None = getattr(_LOCAL, "block", None)
    if block is None or block.numel() < count or count < block.numel() > _KEPT_BYTES:
        block = _LOCAL.block = torch.empty(max(count, 1 << 16), dtype=torch.uint8, device="cpu")
    return block.data_ptr()


def _pool(threads: int) -> ThreadPoolExecutor:
    pool = _POOLS.get(os.getpid())
    if pool is None or pool._max_workers < threads:
        pool = _POOLS[os.getpid()] = ThreadPoolExecutor(threads, thread_name_prefix="gmml_core")
    return pool
