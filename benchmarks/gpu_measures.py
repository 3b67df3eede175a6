"""What `gpu_session` measures on a device: throughput and memory, silence, graphs, and the share of a training step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

import gmml_aug as ga
import gmml_models as gm
from gmml_aug.backends.base import backend_of
from gmml_aug.backends.call import Batch, Maps
from gmml_aug.values import normalise as normalise_bytes
from gmml_models.bench.device_clock import CudaStream, read

HOST: Final = "host was the clock"  # in the record, of a time that is no device's
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Case:
    """A batch; of bytes that become bfloat16 where the dtype is uint8."""

    batch: int
    size: int
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, C, H, W)."""
        return self.batch, 3, self.size, self.size

    @property
    def named(self) -> dict[str, Any]:
        """For the record."""
        return {"batch": self.batch, "size": self.size, "dtype": str(self.dtype).removeprefix("torch.")}


def throughput(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Device times in milliseconds and memory of one batch: a copy, both paths and their parts, and what the paths differ by."""
    corrupt, keys = gmml(), ga.keys(0, 0, range(case.batch)).to(device)
    images = torch.randn(case.shape, device=device).to(case.dtype)
    plan = corrupt.sample(case.shape, keys=keys, backend="torch")
    program, buffer = corrupt.program, torch.empty_like(images)
    batch = Batch(images, images, Maps(), None, images.dtype)
    one, mask, _ = backend_of("triton").paint(program, batch, plan)
    other, touched, _ = backend_of("reference").paint(program, batch, plan)
    assert torch.equal(mask, touched), "the masks differ"
    same = corrupt.sample(case.shape, keys=keys, backend="fused")
    assert all(map(torch.equal, same.boxes, plan.boxes)), "the plans differ"
    row: dict[str, Any] = {**case.named, "difference": float((one.float() - other.float()).abs().max())}
    del one, other, mask, touched, same
    no_blur = plan.only(0, 1, 2)
    contenders: dict[str, Callable[[], object]] = {
        "copy": lambda: buffer.copy_(images),
        "apply, fused": lambda: backend_of("triton").paint(program, batch, plan),
        "apply, fused without blur": lambda: backend_of("triton").paint(program, batch, no_blur),
        "apply, torch": lambda: backend_of("reference").paint(program, batch, plan),
        "sample, fused": lambda: corrupt.sample(case.shape, keys=keys, backend="fused"),
        "sample, torch": lambda: corrupt.sample(case.shape, keys=keys, backend="torch"),
        "call, fused": lambda: corrupt(images, keys=keys, backend="fused"),
    }
    made = images.numel() * images.element_size() + images.numel() // 3  # output and mask
    return row | measured(contenders, device, rounds, made, "copy")


def from_bytes(case: Case, device: torch.device, rounds: int, *, compiled: bool) -> dict[str, Any]:
    """The same of one batch of bytes, against what normalises alone: three operations of torch, and one kernel."""
    corrupt, keys = gmml(), ga.keys(0, 0, range(case.batch)).to(device)
    images = torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    mean, std = (torch.tensor(numbers, device=device)[:, None, None] for numbers in STATISTICS)

    def normalise(batch: Tensor) -> Tensor:
        return ((batch.float() / 255 - mean) / std).to(torch.bfloat16)

    found = corrupt.from_bytes(images, keys=keys, backend="fused")
    wanted = corrupt.from_bytes(images, keys=keys, backend="torch")
    assert torch.equal(found.mask, wanted.mask), "the masks differ"
    row: dict[str, Any] = {
        **case.named,
        "clean differs in": int((found.clean != wanted.clean).sum()),
        "difference": float((found.images.float() - wanted.images.float()).abs().max()),
    }
    del found, wanted
    one_kernel: Any = torch.compile(normalise) if compiled else normalise
    contenders: dict[str, Callable[[], object]] = {
        "normalise, one kernel": lambda: one_kernel(images),
        "normalise, torch": lambda: normalise(images),
        "from_bytes, fused": lambda: corrupt.from_bytes(images, keys=keys, backend="fused"),
        "from_bytes, torch": lambda: corrupt.from_bytes(images, keys=keys, backend="torch"),
    }
    return row | measured(contenders, device, rounds, 4 * images.numel() + images.numel() // 3, "normalise, one kernel")


def silence(case: Case, device: torch.device) -> dict[str, Any]:
    """Whether a call waits for the device: torch raises where it does."""
    corrupt, calls = gmml(), _calls(case, device)
    waits: dict[str, Any] = {}
    for name, call in calls.items():
        call(corrupt)  # compiles
        with no_waiting(device):
            try:
                call(corrupt)
                waits[name] = "waits for nothing" if device.type == "cuda" else "ran; only a device can show it"
            except RuntimeError as error:
                waits[name] = str(error)[:300]
    return waits


def graphs(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """The same calls captured in CUDA graphs: milliseconds of a replay, and whether it gives what a call gives."""
    corrupt = gmml()
    rows: dict[str, Any] = {}
    for name, call in _calls(case, device).items():
        if device.type != "cuda":
            rows[name] = {"differs in": _difference(call(corrupt), call(corrupt))}
            continue
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            call(corrupt)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = call(corrupt)
        graph.replay()
        difference = _difference(captured, call(corrupt))
        rows[name] = {"differs in": difference, **take_time(graph.replay, device, rounds).told}
    return rows


def training_share(name: str, case: Case, device: torch.device, rounds: int, *, compiled: bool) -> dict[str, Any]:
    """Milliseconds of a training step in bfloat16: the model alone, and with each way to corrupt a batch before it."""
    torch.manual_seed(0)
    model = gm.GMMLAutoencoder(name, img_size=case.size).to(device).train()
    run: Any = torch.compile(model) if compiled else model
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
    corrupt, keys = gmml(), ga.keys(0, 0, range(case.batch)).to(device)
    stored = torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    clean = normalise_bytes(stored, STATISTICS, torch.bfloat16)
    ready = corrupt(clean, keys=keys)

    def step(images: Tensor, mask: Tensor, target: Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16):
            loss = gm.masked_l1(run(images), target, mask)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    contenders: dict[str, Callable[[], object]] = {
        "the model alone": lambda: step(*ready, clean),
        "torch": lambda: step(*corrupt(clean, keys=keys, backend="torch"), clean),
        "fused": lambda: step(*corrupt(clean, keys=keys, backend="fused"), clean),
        "from bytes, torch": lambda: step(*corrupt.from_bytes(stored, keys=keys, backend="torch")),
        "from bytes, fused": lambda: step(*corrupt.from_bytes(stored, keys=keys, backend="fused")),
    }
    row: dict[str, Any] = {"model": name, **case.named, "compiled": compiled}
    for label, contender in contenders.items():
        row[label] = take_time(contender, device, rounds).told
    alone = row["the model alone"]["wall"]
    row["share"] = {label: 1.0 - alone / row[label]["wall"] for label in list(contenders)[1:]}
    return row


class Taken(NamedTuple):
    """Milliseconds of a call: on the device, one by one; on the wall on average; what the host took to hand it out."""

    device: list[float]
    wall: float
    host: float
    late: int  # readings that did not count, see `gmml_models.bench.device_clock`
    of_the_host: bool  # none counted

    @property
    def told(self) -> dict[str, Any]:
        """For the record."""
        row = {"minimum": min(self.device), "median": statistics.median(self.device), "wall": self.wall, "host": self.host}
        return {**row, "late": self.late, **({HOST: True} if self.of_the_host else {})}


def take_time(run: Callable[[], object], device: torch.device, rounds: int) -> Taken:
    """Time a call that has been compiled."""
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        taken = (time.perf_counter() - begin) * 1e3
        return Taken([taken], taken, taken, 0, of_the_host=False)
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(rounds):
        run()
    torch.cuda.synchronize()
    wall = (time.perf_counter() - begin) * 1e3 / rounds
    found = read(run, CudaStream(), rounds)
    return Taken(found.device, wall, found.host, found.late, found.of_the_host)


def gmml() -> ga.Chain:
    """The preset for normalised images; a batch of one is no error."""
    return ga.presets.gmml(values=STATISTICS, alone="skip")


def _calls(case: Case, device: torch.device) -> dict[str, Callable[[ga.Corruption], tuple[Tensor, ...]]]:
    """A call on floats and one from bytes, by both paths."""
    keys = ga.keys(0, 0, range(case.batch)).to(device)
    images = torch.randn(case.shape, device=device).to(case.dtype)
    stored = torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    return {
        "call, torch": lambda corrupt: corrupt(images, keys=keys, backend="torch"),
        "call, fused": lambda corrupt: corrupt(images, keys=keys, backend="fused"),
        "from_bytes, torch": lambda corrupt: corrupt.from_bytes(stored, keys=keys, backend="torch"),
        "from_bytes, fused": lambda corrupt: corrupt.from_bytes(stored, keys=keys, backend="fused"),
    }


def measured(
    contenders: dict[str, Callable[[], object]], device: torch.device, rounds: int, made: int, unit: str
) -> dict[str, Any]:
    """Times of each, its peak beside what it makes, as a share of that, and its time in multiples of ``unit``."""
    row: dict[str, Any] = {}
    for name, run in contenders.items():
        told = take_time(run, device, rounds if "torch" not in name else min(rounds, 5)).told
        row[name] = {**told, "extra memory": (_peak(run, device) - made) / made}
    for name in contenders:
        row[name]["times " + unit] = row[name]["median"] / row[unit]["median"]
    return row


def _peak(run: Callable[[], object], device: torch.device) -> int:
    """Bytes that a call has at its peak above what was there."""
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _difference(one: Iterable[Tensor], other: Iterable[Tensor]) -> int:
    return sum(int((a != b).sum()) for a, b in zip(one, other, strict=True))


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """Where nothing may wait for the device; a CPU is not asked."""
    if device.type != "cuda":
        yield
        return
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
