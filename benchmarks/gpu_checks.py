"""Whether the kernels are right on this GPU: against torch's path, against themselves, and by compute-sanitizer.

``python -m benchmarks.gpu_checks`` corrupts eight images in every dtype, for compute-sanitizer to watch.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

import gmml_aug as ga
from benchmarks.gpu_measures import Case, gmml
from benchmarks.triton_interpreter import hurry

# one rounding: torch and the kernels may lie on two sides of a tie, and a later step reads what an earlier one left
ALLOWED: Final = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6}
_PLACES: Final = ("/usr/local/cuda/bin", "/usr/local/cuda/compute-sanitizer")  # where no PATH leads to


def _call(
    corrupt: ga.Chain, images: Tensor, keys: Tensor, made: torch.dtype = torch.bfloat16, **options: Any
) -> tuple[Tensor, ...]:
    """Floats are corrupted; bytes become floats of a dtype, with their clean batch."""
    if images.dtype == torch.uint8:
        return tuple(corrupt.from_bytes(images, keys=keys, dtype=made, **options))
    return tuple(corrupt(images, keys=keys, **options))


def _same(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(map(torch.equal, one, other))


def _apart(found: Tensor, wanted: Tensor) -> float:
    """Largest difference, in units of what is allowed for the dtype."""
    step, one, other = ALLOWED[found.dtype], found.float(), wanted.float()
    return float(((one - other).abs() / (step * other.abs().clamp(min=1.0))).max())


def equality(case: Case, device: torch.device, made: torch.dtype = torch.bfloat16) -> dict[str, Any]:
    """The kernels' plans, masks and images against torch's, and three runs against each other, which is where a race shows.

    The calls take each kernel: plan, paint and blur in place; bits made of a stored plan's boxes; a blur by axes, because a map
    says where it may work. Bytes are ``made`` floats of that dtype: Triton's interpreter drops bits where a device rounds to
    bfloat16, so float32 there.
    """
    corrupt, keys = gmml(), ga.keys(0, 0, range(case.batch)).to(device)
    if case.dtype == torch.uint8:
        images = torch.randint(0, 256, case.shape, dtype=torch.uint8, device=device)
    else:
        images = torch.randn(case.shape, device=device).to(case.dtype)
    plan, ours = (corrupt.sample(case.shape, keys=keys, backend=backend) for backend in ("reference", "triton"))
    drawn = [(a, b) for one, other in zip(plan.drawn, ours.drawn, strict=True) for a, b in zip(one, other, strict=True)]
    floats = [float((a - b).abs().max()) for a, b in drawn if a.is_floating_point()]
    integers = [torch.equal(a, b) for a, b in drawn if not a.is_floating_point()]
    wanted = _call(corrupt, images, keys, made, backend="reference")
    runs = [_call(corrupt, images, keys, made, backend="triton") for _ in range(3)]
    everywhere = torch.ones(1, 1, case.size, case.size, dtype=torch.bool, device=device)
    by_axes = [_call(corrupt, images, keys, made, backend="triton", allowed=everywhere) for _ in range(3)]
    row: dict[str, Any] = {
        "images": f"{case.batch} x 3 x {case.size} x {case.size}",
        "plans": _same(plan.boxes, ours.boxes) and torch.equal(plan.active, ours.active) and all(integers) and max(floats) <= 1e-6,
        "mask": torch.equal(runs[0][1], wanted[1]),
        "three runs": _same(runs[0], runs[1]) and _same(runs[0], runs[2]),
        "three runs by axes": _same(by_axes[0], by_axes[1]) and _same(by_axes[0], by_axes[2]),
        "mask by axes": torch.equal(by_axes[0][1], wanted[1]),
        "difference": _apart(runs[0][0], wanted[0]),
        "difference by axes": _apart(by_axes[0][0], wanted[0]),
    }
    if case.dtype != torch.uint8:
        stored = corrupt.apply(images, plan, backend="triton")
        row["a stored plan"] = _same(tuple(stored), runs[0])
        row["outside"] = torch.equal(runs[0][0].masked_fill(wanted[1], 0), images.masked_fill(wanted[1], 0))
    else:
        row["clean"] = torch.equal(runs[0][2], wanted[2])
    truths = [value for value in row.values() if isinstance(value, bool)]
    return {"passed": all(truths) and max(row["difference"], row["difference by axes"]) <= 1.0, **row}


def watched(tool: str, device: torch.device, seconds: float) -> dict[str, Any]:
    """Eight images under a tool of compute-sanitizer, in a process of its own; on a CPU without it, to see that it runs."""
    command = [sys.executable, "-m", "benchmarks.gpu_checks"]
    if device.type == "cuda":
        checker = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path=os.pathsep.join(_PLACES))
        if checker is None:
            return {"error": "no compute-sanitizer on the PATH, nor in " + " or ".join(_PLACES)}
        command = [checker, "--tool", tool, "--error-exitcode", "9", *command]
    row = ended(command, seconds)
    told = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): .*", row["output"])
    return {"passed": row["code"] == 0, "summary": told[-1] if told else None, **row}


def ended(command: list[str], seconds: float) -> dict[str, Any]:
    """What a command says, which is ended after so many seconds."""
    root = Path(__file__).resolve().parents[1]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=max(seconds, 1.0), cwd=root)
    except subprocess.TimeoutExpired as error:
        said = error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else str(error.stdout or "")
        return {"command": command, "code": None, "error": f"not done after {seconds:.0f} s", "output": said[-8000:]}
    return {"command": command, "code": done.returncode, "output": (done.stdout + done.stderr)[-8000:]}


def main() -> None:
    """Eight images, each kernel once or more."""
    cuda = torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1"
    if not cuda:
        hurry()
    device, size = torch.device("cuda" if cuda else "cpu"), 96 if cuda else 4
    corrupt, keys = gmml(), ga.keys(0, 0, range(8)).to(device)
    everywhere = torch.ones(1, 1, size, size, dtype=torch.bool, device=device)
    stored = torch.randint(0, 256, (8, 3, size, size), dtype=torch.uint8, device=device)
    for images in (torch.randn(8, 3, size, size, device=device), torch.randn(8, 3, size, size, device=device).bfloat16(), stored):
        choices: tuple[dict[str, Any], ...] = ({}, {"allowed": everywhere})
        for options in choices:
            made = _call(corrupt, images, keys, backend="triton", **options)
            print(images.dtype, *options, f"{float(made[1].float().mean()):.3f} of the pixels")


if __name__ == "__main__":
    main()
