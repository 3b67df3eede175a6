"""The table of an evaluation, in which every number has its seeds, its spread, and the command and versions that produced it."""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import gmml_aug
from gmml_models.atomic_write import write_aside
from gmml_models.errors import UsageError, shown
from gmml_models.evaluate.baselines import WORDS
from gmml_models.evaluate.per_class import ByClass, ClassRow, confusion_csv, hardest, to_csv

if TYPE_CHECKING:
    from torch import Tensor

_PACKAGES = ("torch", "timm", "torchvision", "torchmetrics", "scikit-learn", "numpy")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The results of one measure.

    Attributes:
        measure: the name of the measure, for example "20-NN, weighted".
        values: the mean over the runs of each metric, by its name, in percent; see `gmml_models.evaluate.metrics.Metrics`.
        spread: the sample standard deviation over the runs, by name; empty with one run.
        runs: the number of runs.
        seeds: the seeds of the runs; empty if no seed changes anything.
        command: a command that repeats the measurement.
        left_out: the numbers of other files that may be images, and of images that could not be read.
        classes: one row per class or label, counted over all runs.
        confusion: for one class per image, (c, c) int64: the number of images of class i predicted as class j, over all runs.
        features: the features that were measured: "weights", or the name of a baseline in `gmml_models.evaluate.baselines.WORDS`.
    """

    measure: str
    values: Mapping[str, float]
    spread: Mapping[str, float]
    runs: int
    seeds: tuple[int, ...]
    command: str
    left_out: int = 0
    classes: tuple[ClassRow, ...] = ()
    confusion: Tensor | None = field(default=None, compare=False)
    features: str = "weights"


def row(
    measure: str,
    found: Sequence[Mapping[str, float]],
    seeds: Sequence[int],
    command: str,
    by_class: ByClass | None = None,
    *,
    features: str = "weights",
) -> Measured:
    """Make a row from the results of one or more runs."""
    names = list(found[0])
    return Measured(
        measure=measure,
        values={name: float(np.mean([one[name] for one in found])) for name in names},
        # not statistics.stdev, which fails on NaN
        spread={name: float(np.std([one[name] for one in found], ddof=1)) for name in names} if len(found) > 1 else {},
        runs=len(found),
        seeds=tuple(seeds),
        command=command,
        classes=() if by_class is None else by_class.rows,
        confusion=None if by_class is None else by_class.confusion,
        features=features,
    )


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that the numbers depend on."""
    found = {"python": platform.python_version(), "gmml": gmml_aug.__version__}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def markdown(rows: Sequence[Measured], facts: Mapping[str, Any]) -> str:
    """Format the table as Markdown: one row per measure, one column per metric, and with baselines a column for the features."""
    names = list(dict.fromkeys(name for each in rows for name in each.values))
    several = len({each.features for each in rows}) > 1
    head = [*["features"] * several, "measure (%)", *names, "runs", "seeds"]
    lines = [head, ["---"] * len(head)]
    for each in rows:
        cells = [_number(each.values.get(name), each.spread.get(name)) for name in names]
        seeds = " ".join(map(str, each.seeds)) or "no random choice"
        lines.append([*[_whose(each)] * several, each.measure, *cells, str(each.runs), seeds])
    told = "\n".join(f"- {name}: {value}" for name, value in {**facts, **versions()}.items())
    commands = "\n".join(dict.fromkeys(each.command for each in rows))
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{table}\n\n`±` is the standard deviation over the runs.\n\n```sh\n{commands}\n```\n\n{told}"


def write_table(folder: Path, rows: Sequence[Measured], facts: Mapping[str, Any], *, who: str) -> None:
    """Write ``table.json`` and ``table.md``, ``classes.csv`` and a ``confusion-*.csv`` for each row that has one.

    Each is written under another name and renamed. What an earlier table of the folder had beside it is removed.

    Raises:
        UsageError: there is no space or no permission.
    """
    whole = {"rows": [_plain(each) for each in rows], "facts": dict(facts), "versions": versions()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in _beside(folder / "table.json"):
            earlier.unlink(missing_ok=True)
        write_aside(folder / "table.json", json.dumps(whole, indent=2, allow_nan=False))
        write_aside(folder / "table.md", markdown(rows, facts))
        own = [each for each in rows if each.features == "weights"]
        by_class = [(each.measure, each.classes) for each in own if each.classes]
        if by_class:
            write_aside(folder / "classes.csv", to_csv(by_class).encode())
        for each in own:
            if each.confusion is not None:
                names = [one.name for one in each.classes]
                write_aside(folder / f"confusion-{_slug(each.measure)}.csv", confusion_csv(names, each.confusion).encode())
    except OSError as error:
        raise UsageError(f"{who}: the table cannot be written to {folder} ({error}). Give another --out.") from error


def _beside(table: Path) -> list[Path]:
    """The files that belong to a table that is there already: they would be taken for those of the next one."""
    try:
        rows = json.loads(table.read_text(encoding="utf-8"))["rows"]
        measures = [each["measure"] for each in rows]
        return [table.with_name("classes.csv"), *(table.with_name(f"confusion-{_slug(one)}.csv") for one in measures)]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none, or not one of ours
        return []


def _slug(measure: str) -> str:
    """Turn a name into a file name: "20-NN, weighted" becomes "20-nn-weighted"."""
    return re.sub(r"[^a-z0-9]+", "-", measure.lower()).strip("-")


def _plain(each: Measured) -> dict[str, Any]:
    """Convert to JSON types (JSON has no NaN); confusion matrices are written to separate files."""
    numbers = {
        part: {name: value if math.isfinite(value) else None for name, value in getattr(each, part).items()}
        for part in ("values", "spread")
    }
    held = {name: value for name, value in asdict(replace(each, confusion=None)).items() if name != "confusion"}
    return {**held, **numbers, "classes": [one._asdict() for one in each.classes]}


def _number(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if spread is None else f"{value:.2f} ± {spread:.2f}"


def _whose(each: Measured) -> str:
    return WORDS.get(each.features, each.features)


def terminal(rows: Sequence[Measured]) -> str:
    """Format the numbers as lines of text."""
    several = len({each.features for each in rows}) > 1
    wide, whose = max(len(each.measure) for each in rows), max(len(_whose(each)) for each in rows)
    lines = []
    for each in rows:
        told = ", ".join(f"{name} {_number(value, each.spread.get(name))}" for name, value in each.values.items())
        first = f"{_whose(each):<{whose}}  " if several else ""
        lines.append(f"{first}{each.measure:<{wide}}  {told}" + (f"  ({each.runs} runs)" if each.runs > 1 else ""))
    own = [each for each in rows if each.features == "weights"]
    worst = hardest(own[-1].classes) if own else []
    if worst:
        lines += [f"Hardest by {own[-1].measure}:", *(f"  {shown(line)}" for line in worst)]
    return "\n".join(lines)
