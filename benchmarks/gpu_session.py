"""Everything that a GPU session has to run, in one call: tests, memory checker, throughput of both paths against a copy.

Run with ``python -m benchmarks.gpu_session OUT`` on a machine with a CUDA device, or with ``--dry`` and ``TRITON_INTERPRET=1`` on
any other one: tiny sizes, no times worth reading. It has not run on a GPU yet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import gmml_aug as ga
from benchmarks.timing import about_this_machine
from gmml_aug import fused, paint
from gmml_aug.paint import Bounds

SIZES, BATCHES = (224, 1024), (1, 4, 16, 64, 256, 1024)
DTYPES = (torch.float32, torch.bfloat16, torch.uint8)
STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
MOST_BYTES = 16 << 30  # of one batch: the torch path holds several times as much
TESTS = ("tests/aug/test_fused.py", "tests/aug/test_gpu.py")
ONE_SIZE = "tests/aug/test_fused.py::test_gmml_in_any_dtype"


@dataclass(frozen=True)
class Case:
    """A batch."""

    batch: int
    size: int
    dtype: torch.dtype


def main() -> None:
    """Run all parts, write one JSON file each, and go on where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the JSON files")
    parser.add_argument("--dry", action="store_true", help="on the CPU, with tiny sizes: does it run at all")
    chosen = parser.parse_args()
    out, dry = chosen.out, chosen.dry
    out.mkdir(parents=True, exist_ok=True)
    if not dry and not torch.cuda.is_available():
        raise SystemExit("gpu_session: no CUDA device here. Give --dry to try the script itself.")
    if dry:
        os.environ["TRITON_INTERPRET"] = "1"
    device = torch.device("cpu" if dry else "cuda")
    about: dict[str, Any] = {**about_this_machine(), "dry": dry}
    if not dry:
        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "capability": torch.cuda.get_device_capability()}
    _write(out / "about.json", about)
    if not dry:
        _write(out / "tests.json", _run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS], 240))
    rows = []
    for case in _cases(dry):
        try:
            rows.append(_measure(case, device, rounds=1 if dry else 20))
        except (RuntimeError, AssertionError) as error:  # out of memory among them; the other cases still count
            rows.append({**_named(case), "error": f"{type(error).__name__}: {error}"[:500]})
        print(json.dumps(rows[-1]), flush=True)
        _write(out / "throughput.json", {"about": about, "rows": rows})
    checker = shutil.which("compute-sanitizer")
    if not dry and checker is not None:
        command = [checker, "--error-exitcode", "9", sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
        _write(out / "sanitizer.json", _run([*command, ONE_SIZE], 240))


def _cases(dry: bool) -> list[Case]:
    if dry:
        return [Case(2, 24, dtype) for dtype in DTYPES]
    return [
        Case(batch, size, dtype)
        for size in SIZES
        for dtype in DTYPES
        for batch in BATCHES
        if batch * 3 * size**2 * dtype.itemsize <= MOST_BYTES
    ]


def _measure(case: Case, device: torch.device, *, rounds: int) -> dict[str, Any]:
    """Device times in milliseconds of one batch: copy, both paths of `apply`, `sample`, and what the paths differ by."""
    shape = (case.batch, 3, case.size, case.size)
    if case.dtype == torch.uint8:
        images = torch.randint(0, 256, shape, dtype=case.dtype, device=device)
    else:
        images = torch.randn(shape, device=device).to(case.dtype)
    corrupt = ga.presets.gmml(values=None if case.dtype == torch.uint8 else STATISTICS, alone="skip")
    keys = ga.keys(0, 0, range(case.batch)).to(device)
    plan = corrupt.sample(shape, keys=keys)
    program, bounds, buffer = corrupt.program, Bounds(), torch.empty_like(images)
    if not fused.supports(program, images, images):
        raise RuntimeError("the fused path says no")
    one, mask = fused.paint(program, images, images, plan, bounds)
    other, touched = paint.paint(program, images, images, plan, bounds)
    assert torch.equal(mask, touched), "the masks differ"
    row: dict[str, Any] = {**_named(case), "difference": float((one.float() - other.float()).abs().max())}
    del one, other, mask, touched
    no_blur = plan.only(0, 1, 2)
    contenders: dict[str, Callable[[], object]] = {
        "copy": lambda: buffer.copy_(images),
        "fused": lambda: fused.paint(program, images, images, plan, bounds),
        "fused without blur": lambda: fused.paint(program, images, images, no_blur, bounds),
        "torch": lambda: paint.paint(program, images, images, plan, bounds),
        "sample": lambda: corrupt.sample(shape, keys=keys),
    }
    for name, run in contenders.items():
        few = rounds if name != "torch" else min(rounds, 5)
        times, wall = _time(run, device, few)
        row[name] = {"minimum": min(times), "median": statistics.median(times), "wall": wall, "peak": _peak(run, device)}
    for name in ("fused", "fused without blur", "torch", "sample"):
        row[name]["copies"] = row[name]["median"] / row["copy"]["median"]
    row["images a second, fused"] = case.batch / row["fused"]["median"] * 1e3
    row["copy, TB/s"] = 2 * images.numel() * images.element_size() / row["copy"]["median"] / 1e9
    return row


def _time(run: Callable[[], object], device: torch.device, rounds: int) -> tuple[list[float], float]:
    """Milliseconds on the device, one by one, and on the wall on average."""
    for _ in range(min(rounds, 3)):
        run()
    if device.type != "cuda":
        begin = time.perf_counter()
        run()
        taken = (time.perf_counter() - begin) * 1e3
        return [taken], taken
    torch.cuda.synchronize()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
    begin = time.perf_counter()
    for start, end in marks:
        torch.cuda._sleep(2_000_000)  # about a millisecond, in which the host gets ahead: device time, not launches
        start.record()
        run()
        end.record()
    torch.cuda.synchronize()
    wall = (time.perf_counter() - begin) * 1e3 / rounds
    return [start.elapsed_time(end) for start, end in marks], wall


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


def _run(command: list[str], seconds: int) -> dict[str, Any]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds, env=environment)
    except subprocess.TimeoutExpired as error:
        return {"command": command, "code": None, "output": str(error.stdout)[-8000:]}
    print(done.stdout[-2000:], flush=True)
    return {"command": command, "code": done.returncode, "output": (done.stdout + done.stderr)[-8000:]}


def _named(case: Case) -> dict[str, Any]:
    return {"batch": case.batch, "size": case.size, "dtype": str(case.dtype).removeprefix("torch.")}


def _write(path: Path, what: dict[str, Any]) -> None:
    path.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
