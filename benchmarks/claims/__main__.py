"""``python -m benchmarks.claims --data FOLDER``: every row that is not known yet, then the tables.

They stand in docs/reproducing.md, and a short one in the README. The same command goes on where it was stopped, and may run in
several shells at once: they share the rows out. Exit codes: 0 all done, 2 nothing done, 3 stopped, and the same command goes on.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.claims.parts import Place
from benchmarks.claims.repeat import repeat
from benchmarks.claims.row import Row, jobs
from benchmarks.claims.rows import ROWS
from benchmarks.claims.run import Task, add, estimate, key, read, run, whole
from benchmarks.claims.speed import speed
from benchmarks.claims.table import write_into, write_short
from gmml_models.errors import UsageError
from gmml_models.recipes.engine.progress import clock

RESULTS = Path(__file__).parents[1] / "results" / "claims.json"
PAGE = Path(__file__).parents[2] / "docs" / "reproducing.md"
README = Path(__file__).parents[2] / "README.md"
STOPPED = 3


def main(arguments: list[str] | None = None) -> int:
    """Run, list or draw; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the unpacked packs and the files of MNIST")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"), help="folder of all runs, to go on in")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="names of rows, or patterns: 'kinds/*'; gpu/* needs to be named")
    parser.add_argument("--seeds", nargs="+", type=int, help="of those that the rows have")
    parser.add_argument("--minutes", type=float, help="then write a checkpoint and stop, with code 3")
    parser.add_argument(
        "--threads", type=int, default=1, help="of torch: the numbers of more than one may differ in the last digits"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON of all numbers")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the table")
    parser.add_argument("--readme", type=Path, default=README, help="the page with the short one")
    parser.add_argument("--list", action="store_true", help="rows, what is known of them, and the time that the others take")
    parser.add_argument("--table", action="store_true", help="draw the table from the JSON, and run nothing")
    parser.add_argument(
        "--again", action="store_true", help="measure known rows again, from nothing, and note if the numbers agree"
    )
    parser.add_argument("--speed", action="store_true", help="resident pretraining beside the model's step on made-up images")
    told = parser.parse_args(arguments)
    torch.set_num_threads(told.threads)
    try:
        chosen = choose(told.only, told.seeds)
        if told.list:
            show(chosen, told.results)
            return 0
        done = True
        if told.speed:
            found = speed(told.data)
            add(told.results, {f"speed {'gpu' if found['machine']['gpu'] else 'cpu'}": found})
            print(f"{found['recipe']:.0f} img/s, {found['share']:.1%} of the model's own step")
        elif not told.table:
            until = None if told.minutes is None else time.monotonic() + 60 * told.minutes
            task = Task(
                jobs=chosen,
                place=Place(data=told.data, runs=told.runs, until=until),
                results=told.results,
                tell=partial(print, flush=True),
                after=lambda: draw(told),
            )
            done = repeat(task) if told.again else run(task)
        draw(told)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if done else STOPPED


def draw(told: argparse.Namespace) -> None:
    """The tables of both pages, from the JSON.

    Raises:
        UsageError: a page is missing, or its markers.
    """
    results = read(told.results)
    write_into(told.page, results)
    write_short(told.readme, results)


def choose(patterns: list[str] | None, seeds: list[int] | None) -> list[tuple[Row, int]]:
    """The jobs of the rows that are asked for; all but gpu/* where nothing is.

    Raises:
        UsageError: a pattern that fits no row, or seeds that none has.
    """
    for pattern in patterns or ():
        if not fnmatch.filter([row.name for row in ROWS], pattern):
            groups = ", ".join(dict.fromkeys(f"{row.group}/*" for row in ROWS))
            raise UsageError(f"claims: no row is named {pattern!r}. There are {groups}; --list shows them all.")
    rows = [
        row
        for row in ROWS
        if (row.group != "gpu" if patterns is None else any(fnmatch.fnmatchcase(row.name, one) for one in patterns))
    ]
    chosen = [(row, seed) for row, seed in jobs(rows) if seeds is None or seed in seeds]
    if not chosen:
        raise UsageError(f"claims: none of these rows has the seeds {seeds}. Leave --seeds out to see all of them in --list.")
    return chosen


def show(chosen: list[tuple[Row, int]], results: Path) -> None:
    """Print what is known and what is not."""
    known = read(results)
    for row, seed in chosen:
        found = known.get(key(row, seed))
        told = (
            f"{found['top1']:6.2f} %" if whole(row, found) and found is not None else f"~ {clock(estimate([(row, seed)], results))}"
        )
        print(f"{key(row, seed):<40} {told:<12} {row.what}")
    print(f"{len(chosen)} jobs; those not known yet take about {clock(estimate(chosen, results))} on one core.")


if __name__ == "__main__":
    sys.exit(main())
