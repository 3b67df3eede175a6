"""Times corruptions and their peers; nothing in this module depends on a particular peer.

Contenders are called in turn in one process, one round after the other, because machines are shared; ratios are ratios of minima.
If a contender raises an error, its row says so. `benchmarks/README.md` states the rules.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from gmml_models.bench.device_clock import CallTime, CallTimes, CudaStream, DeviceClock, read

SCHEMA = 1
COPY, CLONE = "dst.copy_(src)", "clone()"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "uint8": torch.uint8}
_PACKAGES = ("torch", "torchvision", "kornia", "timm", "transformers", "lightly", "albumentations", "numpy", "triton")
_ALLOCATOR = ("LD_PRELOAD", "GLIBC_TUNABLES", "MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_ARENA_MAX")

Call = Callable[[], object]


@dataclass(frozen=True)
class Peer:
    """A contender."""

    name: str
    does: str  # what of the work, so that unequal work is seen in the table
    make: Callable[[Tensor], Call]  # gets the batch, returns what is timed
    group: Literal["limit", "ours", "peer", "yours"] = "peer"
    package: str | None = None  # needed by make
    dims: tuple[int, ...] = (2,)  # numbers of spatial axes it can work on
    device: Literal["cpu", "cuda"] | None = None  # the only one it is for
    first: bool = False  # the first case of a run alone: it takes long to get ready, or to run


@dataclass(frozen=True)
class Case:
    """A batch."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def name(self) -> str:
        """The name of the case, such as ``64x3x224x224 float32``."""
        return f"{'x'.join(map(str, self.shape))} {self.dtype}"

    @property
    def nbytes(self) -> int:
        """The size of the batch in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize

    def batch(self, device: str) -> Tensor:
        """Make normally distributed numbers, or random bytes; they are the same at every call."""
        generator = torch.Generator(device).manual_seed(0)
        if self.dtype == "uint8":
            return torch.randint(0, 256, self.shape, dtype=torch.uint8, device=device, generator=generator)
        return torch.randn(self.shape, device=device, generator=generator).to(DTYPES[self.dtype])


@dataclass(frozen=True)
class Times:
    """Milliseconds."""

    minimum: float
    median: float
    quartiles: float  # distance of the upper from the lower quartile
    runs: int

    @classmethod
    def of(cls, taken: Sequence[float]) -> Times:
        """Summarise at least one run."""
        low, _, high = statistics.quantiles(taken, n=4) if len(taken) > 1 else (taken[0],) * 3
        return cls(min(taken), statistics.median(taken), high - low, len(taken))


@dataclass(frozen=True)
class Effort:
    """How long the measurement of a case may take."""

    rounds: int = 15
    least: int = 3  # rounds for the slowest, too
    seconds: float = 2.0  # after this much time a contender rests

    def call(self, runs: int, spent: float) -> bool:
        """Return True if a contender gets another turn."""
        return runs < self.least or (runs < self.rounds and spent < self.seconds)


def measure(case: Case, peers: Iterable[Peer], *, device: str = "cpu", effort: Effort | None = None) -> list[dict[str, Any]]:
    """Time all peers on one batch.

    Args:
        case: the batch.
        peers: the contenders; those that cannot work on this kind of batch get no row.
        device: ``"cpu"`` or ``"cuda"``.
        effort: how often to call each contender.

    Returns:
        One row per peer, in the same order, ready for JSON. On CUDA, ``late`` is the number of readings of the device time that
        did not count; ``host_was_the_clock`` is True if none counted, and ``device_ms`` is then the host's time.
    """
    effort = effort or Effort()
    batch, dims = case.batch(device), len(case.shape) - 2
    chosen = [peer for peer in peers if dims in peer.dims and peer.device in (None, device)]
    calls: dict[str, Call] = {}
    rows: dict[str, dict[str, Any]] = {}
    for peer in chosen:
        rows[peer.name] = row_of(case, peer)
        try:
            call = peer.make(batch)
            call()  # the first call loads, compiles and warms up
            rows[peer.name] |= {"extra_memory": peak_memory(call, device), "synchronisations": synchronisations(call, device)}
            calls[peer.name] = call
        except Exception as error:
            rows[peer.name]["error"] = _said(error)
    wall: dict[str, list[float]] = {name: [] for name in calls}
    inside: dict[str, list[CallTime]] = {name: [] for name in calls}
    stream = CudaStream() if device == "cuda" else None
    clocks = {} if stream is None else {name: DeviceClock(call, stream) for name, call in calls.items()}
    for _ in range(effort.rounds):
        for name, call in list(calls.items()):
            if not effort.call(len(wall[name]), sum(wall[name]) / 1e3):
                continue
            try:
                whole = _once(call, device)
                inside[name].append(clocks[name].read() if stream is not None else CallTime(whole, whole, late=False))
            except Exception as error:  # some draws only fail now and then
                rows[name]["error"] = _said(error)
                del calls[name]
                continue
            wall[name].append(whole)
    for name in calls:
        found = CallTimes.of(inside[name])
        rows[name] |= {"wall_ms": asdict(Times.of(wall[name])), "device_ms": asdict(Times.of(found.device))}
        if stream is not None:
            rows[name] |= {"host_ms": found.host, "late": found.late, "host_was_the_clock": found.of_the_host}
    _relate(rows, case)
    return list(rows.values())


def row_of(case: Case, peer: Peer) -> dict[str, Any]:
    """A row without measurements yet."""
    what = {"case": case.name, "shape": list(case.shape), "dtype": case.dtype}
    return {**what, "peer": peer.name, "group": peer.group, "does": peer.does, "error": None}


def _relate(rows: Mapping[str, dict[str, Any]], case: Case) -> None:
    least = {name: row["device_ms"]["minimum"] for name, row in rows.items() if "device_ms" in row}
    for name, row in rows.items():
        if name in least:
            row["images_per_second"] = case.shape[0] / row["wall_ms"]["minimum"] * 1e3
            row["times_copy"] = least[name] / least[COPY] if COPY in least else None
            row["times_clone"] = least[name] / least[CLONE] if CLONE in least else None
            row["bytes_per_second"] = 2 * case.nbytes / least[name] * 1e3  # one read and one write of the batch
            extra = row["extra_memory"]
            row["extra_memory_in_batches"] = None if extra is None else extra / case.nbytes


def _once(call: Call, device: str) -> float:
    """The wall time of one call; its result is freed before the clock stops, as in a training loop."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) * 1e3


def peak_memory(call: Call, device: str) -> int | None:
    """The peak of the bytes that torch allocated during a call, including its output; memory allocated by NumPy is not counted."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else it tells the terminal of a GPU that is not there
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    inner = profile.profiler
    if inner is None or inner.kineto_results is None:
        return None
    events = [event for event in inner.kineto_results.events() if event.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def synchronisations(call: Call, device: str) -> int | None:
    """The number of times that the host waits for the device in a call; None on the CPU."""
    if device == "cpu":
        return None
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(one.message) for one in caught)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def memory_bandwidth(device: str, *, nbytes: int = 1 << 28) -> float:
    """The bytes per second, reads plus writes, of a copy too large for the caches; shares of the bandwidth refer to it."""
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)

    def copy() -> object:
        return target.copy_(source)

    least = min(read(copy, CudaStream(), 7).device if device == "cuda" else [_once(copy, device) for _ in range(7)])
    return 2 * nbytes / least * 1e3


def allocator() -> str:
    """The allocator settings that decide whether memory is fresh at every call."""
    found = [f"{name}={os.environ[name]}" for name in _ALLOCATOR if os.environ.get(name)]
    return ", ".join(found) if found else "default (glibc malloc: large pages go back to the system after every call)"


def cpu_name() -> str:
    """The name of the processor, as the system reports it."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return name
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)


def about(device: str) -> dict[str, Any]:
    """The facts about the machine that a reader needs to compare results."""
    versions: dict[str, str] = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "allocator": allocator(),
        "system": platform.system(),
        "python": sys.version.split()[0],
        "versions": versions,
        "device_time": "measured between two CUDA events, after a sleep that outlasted the host"
        if device == "cuda"
        else "equal to wall time on a CPU",
    }
