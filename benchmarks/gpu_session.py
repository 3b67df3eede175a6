"""Everything that a GPU has to show, in pieces of less than five minutes each; a report that was begun is gone on with.

``kernels``: ceilings, equality and three equal runs, whether calls wait for the device, stages beside what was predicted, calls
with their host and as graphs, throughput beside torch's path, eight images under compute-sanitizer. ``beside``: the share of a
training step of three vision transformers, the peers and the release's loop, other tiles. On request: ``sizes``, and ``suite``,
the tests that need a GPU.

Run with ``python -m benchmarks.gpu_session OUT`` on a machine with a CUDA device, or with ``--rehearse`` on any other one: tiny
sizes by Triton's interpreter, no times worth reading. The report is written after each row; the next run takes the rows that are
missing, failed or were left out for time. ``--pages`` draws the tables of the docs from the JSON.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, Literal

import torch

import gmml_aug as ga
from benchmarks import gpu_checks as checks
from benchmarks import gpu_measures as measures
from benchmarks import gpu_stages as stages
from benchmarks.gpu_measures import Case
from benchmarks.gpu_pages import put_gpu
from benchmarks.gpu_predicted import DECIDE, verdicts
from benchmarks.timing import about_this_machine
from benchmarks.triton_interpreter import hurry
from gmml_models.bench import timing

RESULTS = Path(__file__).parent / "results" / "gpu_session.json"
MOST_BYTES = 8 << 30  # of one batch: the torch path holds several times as much
TESTS = (
    "tests/aug/test_fused.py", "tests/aug/test_fused_plan.py", "tests/aug/test_from_bytes.py", "tests/aug/test_gpu.py",
    "tests/aug/test_graphed.py",
)  # fmt: skip
MODELS = (("vit_small_patch16_224", 256, 50.0), ("vit_tiny_patch16_224", 256, 40.0), ("vit_base_patch16_224", 128, 60.0))
Piece = Literal["kernels", "beside", "sizes", "suite"]
PIECES: Final[tuple[Piece, ...]] = ("kernels", "beside", "sizes", "suite")
LIMIT: Final = 285.0  # seconds of a piece
SAME: Final = ("gpu", "torch", "triton", "kernels", "rehearsal")  # of two runs that may share a report


@dataclass(frozen=True)
class Row:
    """A part of the report.

    Attributes:
        label: its name there.
        piece: in which it runs.
        part: of `gpu_predicted.DECIDE`.
        seconds: about how long it takes, with what it compiles; with less left in the piece it is not begun.
        run: gives what is reported.
    """

    label: str
    piece: Piece
    part: str
    seconds: float
    run: Callable[[], Any]


def main() -> None:
    """Run what is missing, write one JSON file after each row, and go on where one fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, nargs="?", default=RESULTS, help="the JSON file")
    parser.add_argument("--pages", action="store_true", help="measure nothing: draw the tables of the docs from the JSON")
    parser.add_argument("--pieces", nargs="+", choices=PIECES, default=list(PIECES[:2]), help="some of it")
    parser.add_argument("--only", nargs="+", choices=list(DECIDE), help="some parts of these pieces, again if they are there")
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
        hurry()
    device = torch.device("cpu" if rehearse else "cuda")
    report = Report(chosen.out, about(rehearse=rehearse))
    for piece in chosen.pieces:
        run(piece, report, device, 1 if rehearse else chosen.rounds, rehearse=rehearse, only=chosen.only)
    if rehearse and any("error" in row for row in report.rows.values()):
        raise SystemExit("gpu_session: a row of the rehearsal failed, see the report.")


def about(*, rehearse: bool) -> dict[str, Any]:
    """The machine, and what its figures are of."""
    found: dict[str, Any] = {**about_this_machine(), "rehearsal": rehearse, "kernels": kernels_hash()}
    try:
        found["triton"] = version("triton")
    except PackageNotFoundError:
        found["triton"] = None
    if not rehearse:
        found |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "capability": torch.cuda.get_device_capability()}
    return found


def kernels_hash() -> str:
    """Of all sources of the Triton backend: figures of other ones do not belong into the same report."""
    found, folder = hashlib.sha256(), Path(ga.__file__).parent / "backends" / "triton"
    for file in sorted(folder.rglob("*.py")):
        found.update(file.relative_to(folder).as_posix().encode() + file.read_bytes())
    return found.hexdigest()[:16]


class Report:
    """The JSON file: the machine, what is to be decided, targets, then a row for each part.

    One that another machine, other packages or other kernels wrote is kept beside it, under its date.
    """

    def __init__(self, file: Path, machine: Mapping[str, Any]) -> None:
        self.file, self.about, self.rows = file, dict(machine), dict[str, Any]()
        if not file.exists():
            return
        before: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if all(before["about"].get(name) == machine.get(name) for name in SAME):
            self.about = before.pop("about")
            self.rows = {label: row for label, row in before.items() if label not in ("to decide", "targets")}
            return
        aside = file.with_name(f"{file.stem}-{before['about']['date']}.json")
        number = 2
        while aside.exists():
            aside, number = file.with_name(f"{file.stem}-{before['about']['date']}-{number}.json"), number + 1
        file.replace(aside)
        print(
            f"gpu_session: {file.name} is of another machine, other packages or other kernels; it is {aside.name} now", flush=True
        )

    def has(self, label: str) -> bool:
        """True where a row was measured."""
        row = self.rows.get(label)
        return row is not None and "error" not in row and "left out" not in row

    def put(self, label: str, row: Any) -> None:
        """Write the file with one row more."""
        self.rows[label] = row
        told = {"about": self.about, "to decide": dict(DECIDE), "targets": verdicts(self.rows), **self.rows}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        aside = self.file.with_suffix(".part")
        aside.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        aside.replace(self.file)


def run(piece: Piece, report: Report, device: torch.device, rounds: int, *, rehearse: bool, only: list[str] | None = None) -> None:
    """The rows of a piece that are missing, until its time is over.

    Args:
        piece: which.
        report: what is there already, and where each row goes.
        device: of the measurements.
        rounds: how often a call is timed.
        rehearse: on a CPU, at tiny sizes.
        only: parts; those are measured again.
    """
    began = time.monotonic()
    until = math.inf if rehearse else began + LIMIT
    for row in rows(device, rounds, until, rehearse=rehearse):
        if row.piece != piece or (only is not None and row.part not in only) or (only is None and report.has(row.label)):
            continue
        at = time.monotonic() - began
        if at + row.seconds > LIMIT and not rehearse:
            found: Any = {"left out": f"{at:.0f} of {LIMIT:.0f} s had gone, and it may take {row.seconds:.0f}: run this again"}
            if report.has(row.label):
                continue
        else:
            try:
                found = row.run()
            except Exception as error:  # out of memory among them; the others still count
                found = {"error": f"{type(error).__name__}: {error}"[:2000]}
            if device.type == "cuda":
                torch.cuda.empty_cache()
        print(f"{time.monotonic() - began:4.0f} s  {row.label}: {DECIDE[row.part]}\n       {json.dumps(found)}", flush=True)
        report.put(row.label, found)


def rows(device: torch.device, rounds: int, until: float, *, rehearse: bool) -> list[Row]:
    """All of them, in the order in which they are run: what decides most comes first.

    Args:
        device: of the measurements.
        rounds: how often a call is timed.
        until: of the monotonic clock, when the piece ends.
        rehearse: at tiny sizes.
    """
    dtypes = (torch.float32, torch.bfloat16, torch.uint8)
    large = [Case(2, 6, dtype) if rehearse else Case(256, 224, dtype) for dtype in dtypes]
    small = Case(2, 6, torch.bfloat16) if rehearse else Case(64, 224, torch.bfloat16)
    whole = not rehearse  # what is compiled by Inductor
    found = [Row("ceilings", "kernels", "ceilings", 20, partial(stages.ceilings, large[0], device, rounds, compiled=whole))]
    made = torch.float32 if rehearse else torch.bfloat16
    for case in large:  # of an odd size, which no number of pixels that are read together divides
        odd = Case(2, 7, case.dtype) if rehearse else Case(61, 221, case.dtype)
        found.append(Row(f"equality, {_kind(case)}", "kernels", "equality", 20, partial(checks.equality, odd, device, made)))
    found.append(Row("silence", "kernels", "silence", 5, partial(measures.silence, small, device)))
    for case in large:
        found.append(Row(f"stages, {_kind(case)}", "kernels", "stages", 8, partial(stages.stages, case, device, rounds)))
    for case in large:
        run_call = partial(stages.call, case, device, rounds, compiled=whole)
        found.append(Row(f"call, {_kind(case)}", "kernels", "call", 8, run_call))
    found.append(Row("graphs", "kernels", "graphs", 8, partial(measures.graphs, small, device, rounds)))
    sizes = [(2, 5)] if rehearse else [(256, 224), (64, 224)]
    for case in _cases(sizes):
        found.append(_throughput(case, "kernels", "call", 8, device, rounds, compiled=whole))
    found += [Row(tool, "kernels", tool, 35, partial(_watched, tool, device, until)) for tool in ("racecheck", "memcheck")]
    for name, batch, seconds in (("vit_micro_patch8_64", 2, 1.0),) if rehearse else MODELS:
        case = Case(batch, 16 if rehearse else 224, torch.bfloat16)
        share = partial(measures.training_share, name, case, device, rounds, compiled=whole)
        found.append(Row(name, "beside", "training", seconds, share))
    compared = timing.Case((2, 3, 24, 24) if rehearse else (256, 3, 224, 224))
    seconds = 0.01 if rehearse else 0.5
    found.append(Row("peers", "beside", "peers", 35, partial(stages.peers, compared, device, seconds)))
    fewer = timing.Case((2, 3, 24, 24) if rehearse else (64, 3, 224, 224))
    found.append(Row("the release's loop", "beside", "peers", 12, partial(stages.release, fewer, device, 4 * seconds)))
    for case in large[: 1 if rehearse else 2]:
        found.append(Row(f"tiles, {_kind(case)}", "beside", "tiles", 35, partial(_tiles, case, device, rounds, until - 20.0)))
    sizes = [(1, 6)] if rehearse else [(256, 96), (1024, 224), (64, 512), (16, 1024), (4, 224)]
    for case in _cases(sizes):
        found.append(_throughput(case, "sizes", "sizes", 8, device, rounds, compiled=whole))
    if not rehearse:
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *TESTS]
        found.append(Row("tests", "suite", "tests", 60, lambda: _passed(checks.ended(command, until - time.monotonic()))))
    return found


def _watched(tool: str, device: torch.device, until: float) -> dict[str, Any]:
    """Ended in time for the piece; a rehearsal has all the time it needs."""
    return checks.watched(tool, device, 3600.0 if until == math.inf else min(100.0, until - time.monotonic()))


def _passed(row: dict[str, Any]) -> dict[str, Any]:
    return {"passed": row["code"] == 0, **row}


def _tiles(case: Case, device: torch.device, rounds: int, end: float) -> dict[str, Any]:
    """Half of what is left at most: another dtype comes after the first."""
    now = time.monotonic()
    return stages.tiles(case, device, rounds, now + max(end - now, 0.0) / (2 if case.dtype == torch.float32 else 1))


def _cases(sizes: list[tuple[int, int]]) -> list[Case]:
    """Bytes are made bfloat16."""
    cases = [Case(batch, size, dtype) for batch, size in sizes for dtype in (torch.float32, torch.bfloat16, torch.uint8)]
    return [case for case in cases if case.batch * 3 * case.size**2 * case.dtype.itemsize <= MOST_BYTES]


def _throughput(case: Case, piece: Piece, part: str, seconds: float, device: torch.device, rounds: int, *, compiled: bool) -> Row:
    label = f"{case.batch} x 3 x {case.size} x {case.size}, {_kind(case)}"
    if case.dtype == torch.uint8:
        return Row(label, piece, part, seconds, partial(measures.from_bytes, case, device, rounds, compiled=compiled))
    return Row(label, piece, part, seconds, partial(measures.throughput, case, device, rounds))


def _kind(case: Case) -> str:
    return str(case.named["dtype"])


if __name__ == "__main__":
    main()
