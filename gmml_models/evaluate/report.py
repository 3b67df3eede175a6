"""The table of an evaluation: every number with its seeds, its spread, the command and the versions that made it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

import gmml_aug
from gmml_models.atomic_write import write_aside
from gmml_models.errors import UsageError

_PACKAGES = ("torch", "timm", "torchvision", "torchmetrics", "scikit-learn", "numpy")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one way of measuring gave.

    Attributes:
        measure: the way, for example "20-NN, weighted".
        values: mean over the runs by name, in percent; see `gmml_models.evaluate.metrics.Metrics`.
        spread: sample standard deviation over the runs by name; empty with one run.
        runs: how many.
        seeds: of the runs; empty where no seed changes anything.
        command: that measures it again.
        left_out: files beside the images that were measured that may be images, and images that could not be read.
    """

    measure: str
    values: Mapping[str, float]
    spread: Mapping[str, float]
    runs: int
    seeds: tuple[int, ...]
    command: str
    left_out: int = 0


def row(measure: str, found: Sequence[Mapping[str, float]], seeds: Sequence[int], command: str) -> Measured:
    """A row of the measures of one run or more."""
    names = list(found[0])
    return Measured(
        measure=measure,
        values={name: float(np.mean([one[name] for one in found])) for name in names},
        # not statistics.stdev, which fails on NaN
        spread={name: float(np.std([one[name] for one in found], ddof=1)) for name in names} if len(found) > 1 else {},
        runs=len(found),
        seeds=tuple(seeds),
        command=command,
    )


def versions() -> dict[str, str]:
    """Of Python and the packages that numbers depend on."""
    found = {"python": platform.python_version(), "gmml": gmml_aug.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def markdown(rows: Sequence[Measured], facts: Mapping[str, Any]) -> str:
    """The table as Markdown: one line a way of measuring, one column a measure."""
    names = list(dict.fromkeys(name for each in rows for name in each.values))
    head = ["measure (%)", *names, "runs", "seeds"]
    lines = [head, ["---"] * len(head)]
    for each in rows:
        cells = [_number(each.values.get(name), each.spread.get(name)) for name in names]
        seeds = " ".join(map(str, each.seeds)) or "none matters"
        lines.append([each.measure, *cells, str(each.runs), seeds])
    told = "\n".join(f"- {name}: {value}" for name, value in {**facts, **versions()}.items())
    commands = "\n".join(dict.fromkeys(each.command for each in rows))
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{table}\n\n`±` is the standard deviation over the runs.\n\n```sh\n{commands}\n```\n\n{told}"


def write_table(folder: Path, rows: Sequence[Measured], facts: Mapping[str, Any], *, who: str) -> None:
    """Write ``table.json`` and ``table.md``, each aside and renamed.

    Raises:
        UsageError: no room or no permission.
    """
    whole = {"rows": [_plain(each) for each in rows], "facts": dict(facts), "versions": versions()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_aside(folder / "table.json", json.dumps(whole, indent=2, allow_nan=False))
        write_aside(folder / "table.md", markdown(rows, facts))
    except OSError as error:
        raise UsageError(f"{who}: the table cannot be written to {folder} ({error}). Give another --out.") from error


def _plain(each: Measured) -> dict[str, Any]:
    """In types that JSON has: it has no NaN."""
    numbers = {
        part: {name: value if math.isfinite(value) else None for name, value in getattr(each, part).items()}
        for part in ("values", "spread")
    }
    return {**asdict(each), **numbers}


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if spread is None else f"{value:.2f} ± {spread:.2f}"


def terminal(rows: Sequence[Measured]) -> str:
    """The numbers in lines for a person."""
    wide = max(len(each.measure) for each in rows)
    lines = []
    for each in rows:
        told = ", ".join(f"{name} {_number(value, each.spread.get(name))}" for name, value in each.values.items())
        lines.append(f"{each.measure:<{wide}}  {told}" + (f"  ({each.runs} runs)" if each.runs > 1 else ""))
    return "\n".join(lines)
