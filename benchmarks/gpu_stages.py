"""What a GPU needs for each part of a call, beside its prediction: ceilings, stages, whole calls, graphs, tiles, and the peers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

import torch
from torch import Tensor

import gmml_aug as ga
from benchmarks.gpu_measures import STATISTICS, Case, gmml, measured, take_time
from benchmarks.gpu_predicted import compared
from benchmarks.throughput import LOOP, RELEASE
from gmml_aug.backends.base import backend_of
from gmml_aug.backends.call import Batch, Maps
from gmml_aug.backends.triton import blur, marks, painting, plan
from gmml_models.bench import timing
from gmml_models.bench.peers import PEERS, present
from gmml_models.bench.timing import COPY, Effort, measure

_MEAN, _STD = STATISTICS
# rows of a tile, and its warps for numbers of four bytes and of others; the first is today's
TILES: Final = ((8, 2, 1), (8, 4, 2), (8, 1, 1), (4, 1, 1), (4, 2, 2), (16, 2, 2), (16, 4, 4))
# the blur in place: rows and columns of its tile, warps, programs for each multiprocessor; the first is today's
BLURS: Final = ((8, 128, 4, 4), (8, 128, 4, 2), (8, 128, 4, 8), (8, 128, 2, 4), (8, 64, 4, 4), (4, 128, 4, 4), (16, 128, 8, 2))


def batch_of(case: Case, device: torch.device) -> Tensor:
    """Normal numbers, or any bytes."""
    if case.dtype == torch.uint8:
        return torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    return torch.randn(case.shape, device=device).to(case.dtype)


def normalising(device: torch.device, *, compiled: bool) -> Callable[[Tensor], Tensor]:
    """The pass that only normalises: bytes to bfloat16 in one kernel."""
    mean, std = (torch.tensor(numbers, device=device)[:, None, None] for numbers in (_MEAN, _STD))

    def normalise(images: Tensor) -> Tensor:
        return ((images.float() / 255 - mean) / std).to(torch.bfloat16)

    run: Callable[[Tensor], Tensor] = torch.compile(normalise) if compiled else normalise
    return run


def ceilings(case: Case, device: torch.device, rounds: int, *, compiled: bool) -> dict[str, Any]:
    """The units: a copy in each dtype and its bytes a second, the pass that normalises, and a kernel that does next to nothing."""
    row: dict[str, Any] = {"images": _named(case)}
    for dtype in (torch.float32, torch.bfloat16, torch.uint8):
        images = batch_of(Case(case.batch, case.size, dtype), device)
        target = torch.empty_like(images)
        told = take_time(lambda target=target, images=images: target.copy_(images), device, rounds).told  # type: ignore[misc]
        moved = 2 * images.numel() * images.element_size()
        row[f"copy, {_short(dtype)}"] = {**told, "TB a second": moved / told["median"] / 1e9}
    normalise, stored = normalising(device, compiled=compiled), batch_of(Case(case.batch, case.size, torch.uint8), device)
    row["normalise, one kernel"] = take_time(lambda: normalise(stored), device, rounds).told
    one = torch.empty(1, device=device)
    row["a kernel of one number"] = take_time(one.zero_, device, rounds).told
    return row


def stages(case: Case, device: torch.device, rounds: int) -> dict[str, Any]:
    """Plan, paint and blur of one batch, by events and kernel by kernel, each beside its prediction.

    Predictions are for 256 x 3 x 224 x 224; other batches are compared with them scaled to their pixels.
    """
    corrupt, keys, images = gmml(), ga.keys(0, 0, range(case.batch)).to(device), batch_of(case, device)
    no_blur = ga.Chain(corrupt.parts[:3], values=corrupt.values)
    made = torch.bfloat16 if case.dtype == torch.uint8 else case.dtype
    batch = Batch(images, images, Maps(), None, made)
    plans = {one: one.sample(case.shape, keys=keys, backend="fused") for one in (corrupt, no_blur)}

    def paint(one: ga.Chain, plan: ga.Plan) -> Callable[[], object]:
        return lambda: backend_of("triton").paint(one.program, batch, plan)

    def call() -> object:
        return backend_of("triton").paint(corrupt.program, batch, corrupt.sample(case.shape, keys=keys, backend="fused"))

    contenders: dict[str, Callable[[], object]] = {
        "plan": lambda: corrupt.sample(case.shape, keys=keys, backend="fused"),
        "paint": paint(no_blur, plans[no_blur]),
        "paint and blur": paint(corrupt, plans[corrupt]),
        "bits of a stored plan, paint and blur": lambda: paint(corrupt, plans[corrupt][:])(),
        "call": call,
    }
    row: dict[str, Any] = {
        "images": _named(case),
        **{name: take_time(run, device, rounds).told for name, run in contenders.items()},
    }
    row["blur"] = {"median": row["paint and blur"]["median"] - row["paint"]["median"]}
    scale = 256 * 224 * 224 / (case.batch * case.size**2)
    kind = _short(case.dtype)
    row["beside the prediction, us"] = {
        stage: compared(stage, kind, row[stage]["median"] * scale) for stage in ("plan", "paint", "blur", "call")
    }
    row["kernels, us"] = kernels(call, device)
    return row


def kernels(run: Callable[[], object], device: torch.device, calls: int = 5) -> dict[str, Any]:
    """Microseconds of each kernel in a call, by torch's profiler; on a CPU of each operation."""
    from torch.profiler import ProfilerActivity, profile

    cuda = device.type == "cuda"
    run()
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as found:
        for _ in range(calls):
            run()
        if cuda:
            torch.cuda.synchronize()
    rows = {
        event.key[:60]: (event.self_device_time_total if cuda else event.self_cpu_time_total, event.count)
        for event in found.key_averages()
    }
    longest = sorted(rows.items(), key=lambda item: -item[1][0])[:10]
    return {name: {"us": round(taken / calls, 1), "launches": round(count / calls, 1)} for name, (taken, count) in longest if taken}


def call(case: Case, device: torch.device, rounds: int, *, compiled: bool) -> dict[str, Any]:
    """A whole call beside its unit: time, host, memory; without the clean batch where it comes from bytes; and as a graph."""
    corrupt, keys, images = gmml(), ga.keys(0, 0, range(case.batch)).to(device), batch_of(case, device)
    contenders: dict[str, Callable[[], object]]
    if case.dtype == torch.uint8:
        normalise, unit, batches = normalising(device, compiled=compiled), "normalise, one kernel", 4
        contenders = {
            unit: lambda: normalise(images),
            "call": lambda: corrupt.from_bytes(images, keys=keys, backend="fused"),
            "without the clean batch": lambda: corrupt.from_bytes(images, keys=keys, clean=False, backend="fused"),
        }
        graphed = ga.Graphed(corrupt, dtype=torch.bfloat16, backend="fused")
    else:
        target, unit, batches = torch.empty_like(images), "copy", images.element_size()
        contenders = {unit: lambda: target.copy_(images), "call": lambda: corrupt(images, keys=keys, backend="fused")}
        graphed = ga.Graphed(corrupt, backend="fused")
    row: dict[str, Any] = measured(contenders, device, rounds, batches * images.numel() + images.numel() // 3, unit)
    sample = take_time(lambda: corrupt.sample(case.shape, keys=keys, backend="fused"), device, rounds).told
    row |= {
        "images": _named(case),
        "times": row["call"][f"times {unit}"],
        "host": row["call"]["host"],
        "host of sample": sample["host"],
    }
    row["extra memory"] = row["call"]["extra memory"]
    if "without the clean batch" in row:
        row["without the clean batch"]["times"] = row["without the clean batch"][f"times {unit}"]
    if device.type == "cuda":
        own = graphed.buffer(images)
        row["Graphed"] = take_time(lambda: graphed(own, keys=keys), device, rounds).told
        found, wanted = graphed(own, keys=keys), contenders["call"]()
        assert isinstance(wanted, tuple)
        row["Graphed differs in"] = sum(int((a != b).sum()) for a, b in zip(found, wanted, strict=True))
    return row


@contextmanager
def tiled(rows: int, wide: int, narrow: int) -> Iterator[None]:
    """Tiles of so many rows, and so many warps for numbers of four bytes and for others."""
    with ExitStack() as stack:
        for module in (marks, painting, plan):
            stack.enter_context(mock.patch.object(module, "ROWS", rows))
        stack.enter_context(mock.patch.object(painting, "_WARPS", {4: wide, 2: narrow, 1: narrow}))
        yield


@contextmanager
def blurred(rows: int, columns: int, warps: int, programs: int) -> Iterator[None]:
    """A blur in place by other tiles."""
    with mock.patch.multiple(blur, _BOX_TILE=(rows, columns), _BOX_WARPS=warps, _PROGRAMS=programs):
        yield


def tiles(case: Case, device: torch.device, rounds: int, until: float) -> dict[str, Any]:
    """A call with other tiles, each equal to today's to the bit or said not to be; ends with what there is at ``until``."""
    keys, images = ga.keys(0, 0, range(case.batch)).to(device), batch_of(case, device)
    row: dict[str, Any] = {"images": _named(case)}
    today: ga.Corrupted | None = None
    for name, change in (
        *((f"paint: {rows} rows, {wide} or {narrow} warps", tiled(rows, wide, narrow)) for rows, wide, narrow in TILES),
        *((f"blur: {rows} x {columns}, {warps} warps, {programs} programs", blurred(rows, columns, warps, programs))
          for rows, columns, warps, programs in BLURS),
    ):  # fmt: skip
        if time.monotonic() > until:
            row.setdefault("not reached", []).append(name)
            continue
        with change:
            corrupt = gmml()  # what is prepared for a program is kept, tiles too
            found = corrupt(images, keys=keys, backend="fused")
            today = found if today is None else today
            told = take_time(lambda: corrupt(images, keys=keys, backend="fused"), device, rounds).told  # noqa: B023
            row[name] = {**told, "equal": all(map(torch.equal, found, today))}
    return row


def peers(case: timing.Case, device: torch.device, seconds: float) -> dict[str, Any]:
    """Ours and the peers in turn: milliseconds of the device, multiples of the copy, and what each of them does."""
    wanted = ("ours", "limit")
    chosen, absent = present([peer for peer in PEERS if peer.group in wanted or peer.package in ("kornia", "torchvision", "timm")])
    rows = measure(case, [peer for peer in chosen if not peer.first], device=device.type, effort=Effort(15, 3, seconds))
    return {"case": case.name, "rows": [_peer(row) for row in rows], "absent": absent}


def release(case: timing.Case, device: torch.device, seconds: float) -> dict[str, Any]:
    """The release's rule as a loop over images and boxes, which waits for the device at every box, beside ours."""
    names = (COPY, "gmml", "gmml_reference")
    ours = [peer for peer in PEERS if peer.name in names]
    rows = {row["peer"]: row for row in measure(case, [*ours, RELEASE], device=device.type, effort=Effort(5, 1, seconds))}
    found: dict[str, Any] = {"case": case.name, "rows": [_peer(row) for row in rows.values()]}
    times = {name: row["wall_ms"]["minimum"] for name, row in rows.items() if not row["error"]}
    if LOOP in times:
        found["times faster"] = {name: times[LOOP] / times[name] for name in names[1:] if name in times}
    return found


def _peer(row: dict[str, Any]) -> dict[str, Any]:
    found = {name: row[name] for name in ("peer", "does", "error")}
    if row["error"]:
        return found
    kept = ("times_copy", "images_per_second", "extra_memory_in_batches", "synchronisations", "host_was_the_clock")
    times = {"ms": row["device_ms"]["minimum"], "wall ms": row["wall_ms"]["minimum"]}
    return {**found, **times, **{name: row[name] for name in kept if name in row}}


def _named(case: Case) -> str:
    return f"{case.batch} x 3 x {case.size} x {case.size}, {_short(case.dtype)}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
