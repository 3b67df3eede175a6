"""Everything that a GPU session has to run, in one call of less than ten minutes.

Whether calls wait for the device, CUDA graphs, throughput and memory of both paths against a copy, from bytes against a pass that
normalises, the share of a training step of three vision transformers, the tests that need a GPU, and the memory checker.

Run with ``python -m benchmarks.gpu_session OUT`` on a machine with a CUDA device, or with ``--rehearse`` on any other one: tiny
sizes by Triton's interpreter, no times worth reading. ``--pages`` draws the tables of the docs from the JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_measures as measures
from benchmarks.gpu_measures import Case
from benchmarks.gpu_pages import put_gpu
from benchmarks.timing import about_this_machine

RESULTS = Path(__file__).parent / "results" / "gpu_session.json"
MOST_BYTES = 8 << 30  # of one batch: the torch path holds several times as much
TESTS = ("tests/aug/test_fused.py", "tests/aug/test_fused_plan.py", "tests/aug/test_from_bytes.py", "tests/aug/test_gpu.py")
ONE_SIZE = "tests/aug/test_fused.py::test_gmml_in_any_dtype"
MODELS = (("vit_tiny_patch16_224", 256), ("vit_small_patch16_224", 256), ("vit_base_patch16_224", 128))
SECONDS = {"measures": 210, "training": 360, "tests": 480, "sanitizer": 570}  # since the start; what comes later is left out


def main() -> None:
    """Run all parts, write one JSON file after each of them, and go on where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=RESULTS, help="the JSON file")
    parser.add_argument("--pages", action="store_true", help="measure nothing: draw the tables of the docs from the JSON")
    parser.add_argument("--parts", nargs="+", choices=list(SECONDS), default=list(SECONDS), help="some of it")
    parser.add_argument("--most", type=int, default=99, help="how many batches; those that matter most come first")
    parser.add_argument("--models", nargs="+", choices=[name for name, _ in MODELS], help="whose training step; all by default")
    parser.add_argument("--rounds", type=int, default=20, help="how often a call is timed; 1 to compile everything for a later run")
    parser.add_argument("--rehearse", action="store_true", help="on the CPU, with tiny sizes: does it run at all")
    chosen = parser.parse_args()
    if chosen.pages:
        put_gpu(json.loads(chosen.out.read_text(encoding="utf-8")))
        return
    rehearse: bool = chosen.rehearse
    if not rehearse and not torch.cuda.is_available():
        raise SystemExit("gpu_session: no CUDA device here. Give --rehearse to try the script itself.")
    if rehearse:
        os.environ["TRITON_INTERPRET"] = "1"
    began, device = time.monotonic(), torch.device("cpu" if rehearse else "cuda")
    about: dict[str, Any] = {**about_this_machine(), "rehearsal": rehearse}
    if not rehearse:
        about |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "capability": torch.cuda.get_device_capability()}
    found: dict[str, Any] = {"about": about}
    for part, label, run in _parts(device, rehearse, began, 1 if rehearse else chosen.rounds, chosen.most):
        if part not in chosen.parts or (part == "training" and chosen.models and label not in chosen.models):
            continue
        at = time.monotonic() - began
        if at > SECONDS[part]:
            row: Any = {"left out": f"{at:.0f} s had gone"}
        else:
            try:
                row = run()
            except (RuntimeError, AssertionError, ValueError) as error:  # out of memory among them; the others still count
                row = {"error": f"{type(error).__name__}: {error}"[:500]}
        print(label, json.dumps(row), flush=True)
        found[label] = row
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        aside = chosen.out.with_suffix(".part")
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        aside.replace(chosen.out)


def _parts(
    device: torch.device, rehearse: bool, began: float, rounds: int, most: int
) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Which deadline, a name, and what to run."""
    share = measures.training_share
    small = Case(2, 8, torch.bfloat16) if rehearse else Case(64, 224, torch.bfloat16)
    yield "measures", "silence", partial(measures.silence, small, device)
    yield "measures", "graphs", partial(measures.graphs, small, device, rounds)
    for case in _cases(rehearse)[:most]:
        label = f"{case.batch} x 3 x {case.size} x {case.size}, {case.named['dtype']}"
        if case.dtype == torch.uint8:
            yield "measures", label, partial(measures.from_bytes, case, device, rounds, compiled=not rehearse)
        else:
            yield "measures", label, partial(measures.throughput, case, device, rounds)
    for name, batch in (("vit_micro_patch8_64", 2),) if rehearse else MODELS:
        case = Case(batch, 16 if rehearse else 224, torch.bfloat16)
        yield "training", name, partial(share, name, case, device, rounds, compiled=not rehearse)
    if rehearse:
        return
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    yield "tests", "tests", partial(_run, [*tests, *TESTS], began + SECONDS["tests"] + 30)
    checker = shutil.which("compute-sanitizer")
    if checker is not None:
        command = [checker, "--error-exitcode", "9", *tests, ONE_SIZE]
        yield "sanitizer", "sanitizer", partial(_run, command, began + SECONDS["sanitizer"] + 20)


def _cases(rehearse: bool) -> list[Case]:
    """The ones that matter most come first; bytes are made bfloat16."""
    dtypes = (torch.float32, torch.bfloat16, torch.uint8)
    if rehearse:
        return [Case(2, 8, dtype) for dtype in dtypes[1:]]
    sizes = [(256, 224), (64, 224), (256, 96), (1024, 224), (64, 512), (16, 1024), (4, 224)]
    cases = [Case(batch, size, dtype) for batch, size in sizes for dtype in dtypes]
    return [case for case in cases if case.batch * 3 * case.size**2 * case.dtype.itemsize <= MOST_BYTES]


def _run(command: list[str], end: float) -> dict[str, Any]:
    """What a command says; ended at ``end`` of the monotonic clock."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    left = max(end - time.monotonic(), 1.0)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=left, env=environment)
    except subprocess.TimeoutExpired as error:
        return {"command": command, "code": None, "output": str(error.stdout)[-8000:]}
    return {"command": command, "code": done.returncode, "output": (done.stdout + done.stderr)[-8000:]}


if __name__ == "__main__":
    main()
