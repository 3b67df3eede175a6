"""What a GPU measured, as tables in the docs, drawn from the report of `benchmarks.gpu_session`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.gpu_measures import HOST
from benchmarks.pages import PERFORMANCE, lines, put, short

_PLAIN = ["batch", "copy, ms", "apply but blur", "apply", "call", "call, ms", "host, ms", "extra memory", "torch's path"]
_BYTES = ["bytes to bfloat16", "normalising alone, ms", "and corrupting, ms", "times", "host, ms", "torch's path"]
_STEPS = ["training step, bfloat16, compiled", "images", "model alone, ms", "of it corruption", "from bytes", "torch's path"]
_NOTE = (
    "Struck out: the host outlasted the sleep behind which the call was queued, so the time is partly its own, and too long. "
    "The clock now detects and discards such readings; no GPU has measured these again."
)
_PARTS = ("apply, fused without blur", "apply, fused", "call, fused")


def put_gpu(report: Mapping[str, Any], page: Path = PERFORMANCE) -> None:
    """Everything, in the docs.

    Raises:
        UsageError: the page lacks the markers.
    """
    put(page, "gpu", "python -m benchmarks.gpu_session --pages", tables(report))


def tables(report: Mapping[str, Any]) -> str:
    """Markdown: corruption in multiples of a copy, from bytes in multiples of normalising alone, the share of training steps."""
    measured = {name: row for name, row in report.items() if isinstance(row, Mapping) and "batch" in row}
    rows = measured
    steps = {name: row for name, row in measured.items() if "share" in row}
    plain = [_plain(name, row) for name, row in rows.items() if "copy" in row]
    bytes_ = [_bytes(name, row) for name, row in rows.items() if "from_bytes, fused" in row]
    shares = [_step(name, row) for name, row in steps.items()]
    text = []
    for heads, found in ((_PLAIN, plain), (_BYTES, bytes_), (_STEPS, shares)):
        text += [*lines(heads, found, left=1), ""] if found else []
    waits = " and ".join(sorted({str(one) for one in report["silence"].values()}))
    graphs = ", ".join(f"{name} {one['median']:.2f} ms" for name, one in report["graphs"].items())
    text += [f"64 x 3 x 224 x 224 in bfloat16: a call {waits}; as a CUDA graph it gives the same, and takes: {graphs}.", ""]
    if any("~~" in cell for found in (plain, bytes_) for row in found for cell in row):
        text += [_NOTE, ""]
    about = report["about"]
    where = f"{about['gpu']}, torch {about['torch']}, CUDA {about['cuda']}, {about['date']}"
    return "\n".join([*text, f"`gmml`; medians between two CUDA events, multiples of the copy in the same run; {where}."])


def _plain(name: str, row: Mapping[str, Any]) -> list[str]:
    copy, call = row["copy"], row["call, fused"]
    torch = (row["apply, torch"]["median"] + row["sample, torch"]["median"]) / copy["median"]
    multiples = [_struck(short(row[part]["times copy"]), row[part]) for part in _PARTS]
    times = [_struck(short(call["median"]), call), short(call.get("host", call["wall"]))]
    slow = _struck(short(torch), row["apply, torch"], row["sample, torch"])
    return [name, f"{copy['median']:.3f}", *multiples, *times, f"{call['extra memory']:.0%}", slow]


def _bytes(name: str, row: Mapping[str, Any]) -> list[str]:
    alone, ours, torch = (row[part] for part in ("normalise, one kernel", "from_bytes, fused", "from_bytes, torch"))
    times = [_struck(short(one["median"] / alone["median"]), one) for one in (ours, torch)]
    return [
        name,
        f"{alone['median']:.3f}",
        _struck(short(ours["median"]), ours),
        times[0],
        short(ours.get("host", ours["wall"])),
        times[1],
    ]


def _struck(figure: str, *measured: Mapping[str, Any]) -> str:
    """The figure, struck out if a time in it is the host's."""
    return f"~~{figure}~~" if any(one.get(HOST) for one in measured) else figure


def _step(name: str, row: Mapping[str, Any]) -> list[str]:
    shares = [f"{row['share'][way]:.1%}" for way in ("fused", "from bytes, fused", "torch")]
    return [name, str(row["batch"]), short(row["the model alone"]["wall"]), *shares]
