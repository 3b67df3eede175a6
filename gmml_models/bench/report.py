"""The batches that ``gmml bench`` measures, the report that it records, and the tables made from it."""

from __future__ import annotations

import json
import math
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from gmml_models.bench.peers import PEERS, own_peer
from gmml_models.bench.timing import COPY, DTYPES, SCHEMA, Case, Effort, Peer, about, measure, memory_bandwidth, row_of
from gmml_models.errors import UsageError

MAIN = Case((64, 3, 224, 224))
SPECTROGRAMS, VOLUMES = (64, 1, 128, 512), (8, 1, 64, 64, 64)
QUICK = (
    MAIN,
    *(Case((batch, 3, 224, 224)) for batch in (1, 16, 256)),
    *(Case((batch, 3, size, size)) for batch, size in ((64, 32), (64, 96), (16, 512), (4, 1024))),
    Case(MAIN.shape, "bfloat16"),
    Case(MAIN.shape, "uint8"),
    Case(SPECTROGRAMS),
    Case(VOLUMES),
)
QUICK_CUDA = (
    *(Case((256, 3, 224, 224), dtype) for dtype in DTYPES),
    MAIN,
    Case((64, 3, 32, 32)),
    Case(VOLUMES),
)
SIZES, BATCHES = (32, 96, 224, 512, 1024), (1, 4, 16, 64, 256, 1024, 4096)
FULL = tuple(
    dict.fromkeys(
        [
            *QUICK,
            *(Case((batch, 3, size, size), dtype) for dtype in DTYPES for size in SIZES for batch in BATCHES),
            *(Case((batch, *shape[1:]), dtype) for dtype in DTYPES for shape in (SPECTROGRAMS, VOLUMES) for batch in (4, 64, 256)),
        ]
    )
)
_NEED = 8  # batches that the hungriest peers hold at once


def read_case(written: str, dtype: str) -> Case:
    """Parse a batch shape ``BxCxH...``, for example 64x3x224x224.

    Raises:
        UsageError: something else.
    """
    parts = written.split("x")
    if not 3 <= len(parts) <= 5 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(
            f"gmml bench: --shape {written} is not of the form B x C x sizes. Give one to three sizes, for example 64x3x224x224."
        )
    return Case(tuple(map(int, parts)), dtype)


def choose(peers: Sequence[Peer], patterns: Sequence[str]) -> list[Peer]:
    """Select the peers whose names match a pattern, or all of them if there is none.

    Limits and the user's functions are always kept.

    Raises:
        UsageError: no peer matches the pattern.
    """
    for pattern in patterns:
        if not any(fnmatchcase(peer.name, pattern) for peer in peers):
            raise UsageError(f"gmml bench: no contender matches {pattern}. There are: {', '.join(p.name for p in peers)}.")
    kept = {peer.name for peer in peers if any(fnmatchcase(peer.name, pattern) for pattern in patterns)}
    return [peer for peer in peers if not patterns or peer.name in kept or peer.group in ("limit", "yours")]


def run(
    cases: Sequence[Case],
    peers: Sequence[Peer],
    *,
    absent: Mapping[str, str],
    device: str = "cpu",
    effort: Effort | None = None,
    memory: float = 2.0,
    tell: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure everything, and return the report, ready for JSON.

    On a CPU, each of several batches is measured in its own process: earlier allocations decide whether memory is fresh, and
    `clone()` of 150 MB took 1 or 9 copies, depending on the batches before it.

    Args:
        cases: the batches, the first of which gets the large table.
        peers: the contenders.
        absent: the peers that could not be run, with the reasons, for the report.
        device: ``"cpu"`` or ``"cuda"``.
        effort: how long to measure; the first batch gets four times as many seconds.
        memory: the GB that a case may need; larger cases are skipped, and the report lists them.
        tell: a function that is called with one line of text per case.
    """
    room = memory * 1e9
    fitting = [case for case in cases if case.nbytes * _NEED <= room]
    rows: list[dict[str, Any]] = []
    bandwidth = memory_bandwidth(device, nbytes=min(1 << 28, int(room / 4)))
    effort = effort or Effort()
    for number, case in enumerate(fitting):
        if tell:
            tell(f"{number + 1}/{len(fitting)} {case.name}")
        own = effort if number else replace(effort, seconds=4 * effort.seconds)
        here = [peer for peer in peers if not (number and peer.first)]
        if device == "cpu" and len(fitting) > 1:
            rows += _measure_apart(case, here, own)
        else:
            rows += measure(case, here, device=device, effort=own)
    for row in rows:
        if "device_ms" in row:
            row["bandwidth_share"] = row["bytes_per_second"] / bandwidth
    return {
        "schema": SCHEMA,
        "machine": about(device),
        "memory_bandwidth": bandwidth,
        "rows": rows,
        "absent": dict(absent),
        "cut": [case.name for case in cases if case not in fitting],
        "memory_limit_gb": memory,
    }


def apart(function: Callable[..., Any], *words: Any) -> Any:
    """Call a function of a module in a new process with as many threads as this one, and return its result."""
    start = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, start, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),)) as pool:
        return pool.submit(function, *words).result()


def _measure_apart(case: Case, peers: Sequence[Peer], effort: Effort) -> list[dict[str, Any]]:
    known = {peer.name for peer in PEERS}
    sent = [peer.name if peer.name in known or peer.group == "yours" else peer for peer in peers]
    try:
        rows: list[dict[str, Any]] = apart(_by_name, case, sent, effort)
    except BrokenProcessPool:
        return [
            {**row_of(case, peer), "error": "the process ended: there was too little memory, or a contender crashed"}
            for peer in peers
        ]
    return rows


def _by_name(case: Case, sent: Sequence[str | Peer], effort: Effort) -> list[dict[str, Any]]:
    known = {peer.name: peer for peer in PEERS}
    return measure(case, [known.get(one) or own_peer(one) if isinstance(one, str) else one for one in sent], effort=effort)


def to_json(report: Mapping[str, Any]) -> str:
    """Write the report as JSON with one line per row and floats of six digits."""
    head = json.dumps(_rounded({name: value for name, value in report.items() if name != "rows"}), indent=2).removesuffix("\n}")
    rows = ",\n".join(f"    {json.dumps(_rounded(row))}" for row in report["rows"])
    return f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {name: _rounded(one) for name, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list) else value


def markdown(report: Mapping[str, Any]) -> str:
    """Make the tables: all numbers for the first batch, multiples of the copy for all, and the peers that failed or are absent."""
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    machine = report["machine"]
    cases = list(dict.fromkeys(row["case"] for row in rows))
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    where = machine["cpu"] if machine["device"] == "cpu" else f"{machine['device']}, {machine['cpu']}"
    lines = [
        f"{where}, {machine['cores']} cores, threads used: {machine['threads']}, allocator: {machine['allocator']}. "
        f"Python {machine['python']}, {versions}. {machine['date']}.",
        f"A copy of {_number(report['memory_bandwidth'] / 1e9)} GB/s (reads and writes) is 100 % of the bandwidth; device time is "
        f"{machine['device_time']}. Ratios are ratios of minima. Memory is the peak beyond the input, in batches, "
        "including the output.",
    ]
    for case in cases[:1]:
        lines += ["", f"### {case}", "", *_large([row for row in rows if row["case"] == case], machine["device"] != "cpu")]
    if len(cases) > 1:
        lines += ["", "### Multiples of the copy", "", *_matrix(rows, cases)]
    refusals = list(dict.fromkeys((row["peer"], row["dtype"], row["error"]) for row in rows if row["error"]))
    if refusals:
        lines += ["", "Refused or failed:", "", *(f"- {peer}, {dtype}: {_cell(error)}" for peer, dtype, error in refusals)]
    if report["absent"]:
        lines += ["", "Absent: " + "; ".join(f"{name} ({why})" for name, why in report["absent"].items()) + "."]
    if report["cut"]:
        lines += ["", f"Cut at {report['memory_limit_gb']:g} GB: {', '.join(report['cut'])}."]
    return "\n".join(lines) + "\n"


def _large(rows: Sequence[Mapping[str, Any]], cuda: bool) -> list[str]:
    heads = [
        "contender",
        "does",
        *(["device ms", "wall ms"] if cuda else ["ms"]),
        "median",
        "quartiles",
        "img/s",
        "x copy",
        "x clone",
    ]
    heads += ["bandwidth", "memory", *(["waits"] if cuda else []), "runs"]
    table = [heads]
    timed = [row for row in rows if "device_ms" in row]
    for row in sorted(timed, key=lambda row: row["device_ms"]["minimum"]):
        own, wall = row["device_ms"], row["wall_ms"]
        cells = [f"**{row['peer']}**" if row["group"] in ("ours", "yours") else row["peer"], _cell(row["does"])]
        least = _number(own["minimum"]) + (" (host)" if row.get("host_was_the_clock") else "")
        cells += [least, *([_number(wall["minimum"])] if cuda else []), _number(own["median"])]
        cells += [_number(own["quartiles"]), f"{row['images_per_second']:,.0f}", _number(row["times_copy"])]
        cells += [_number(row["times_clone"]), f"{row['bandwidth_share']:.1%}"]
        cells.append("not seen" if row["peer"].startswith("albumentations") else _number(row["extra_memory_in_batches"]))
        table.append([*cells, *([str(row["synchronisations"])] if cuda else []), str(own["runs"])])
    return _lines(table, left=2)


def _matrix(rows: Sequence[Mapping[str, Any]], cases: Sequence[str]) -> list[str]:
    found = {(row["peer"], row["case"]): row for row in rows}
    names = list(dict.fromkeys(row["peer"] for row in rows))
    table = [["contender", *cases]]
    for name in names:
        own = [found.get((name, case), {}) for case in cases]
        table.append([name, *("error" if row.get("error") else _number(row.get("times_copy")) for row in own)])
    copy = [found.get((COPY, case), {}) for case in cases]
    table.insert(1, [f"{COPY}, ms", *(_number(row["device_ms"]["minimum"] if "device_ms" in row else None) for row in copy)])
    return _lines(table, left=1)


def _lines(table: Sequence[Sequence[str]], *, left: int) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    text = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in table]
    rule = "| " + " | ".join("-" * width if n < left else "-" * (width - 1) + ":" for n, width in enumerate(widths)) + " |"
    return [text[0], rule, *text[1:]]


def _number(value: float | None) -> str:
    """Format a number with three significant digits."""
    if value is None or not math.isfinite(value):
        return "-"
    if value == 0 or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
