"""``python -m benchmarks.claims --data FOLDER``: every row that is not known yet, then the tables.

They stand in docs/reproducing.md, and a short one in the README. Run the same command again to resume; it may run in several shells
at once, which share the rows out. Exit codes: 0 all done, 2 nothing done, 3 stopped: run it again.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

import torch

from benchmarks.claims import curve
from benchmarks.claims.images import open_images
from benchmarks.claims.rows import BY_NAME, ROWS, Row, jobs
from benchmarks.claims.run import Place, Results, add, key, known_jobs, machine, read, run, whole
from benchmarks.claims.table import write_into, write_short
from benchmarks.training import speed
from gmml_models.errors import UsageError
from gmml_models.train.progress import clock

RESULTS = Path(__file__).parents[1] / "results" / "claims.json"
PAGE = Path(__file__).parents[2] / "docs" / "reproducing.md"
README = Path(__file__).parents[2] / "README.md"
STOPPED = 3


def main(arguments: list[str] | None = None) -> int:
    """Run, list or draw; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the unpacked packs and the files of MNIST")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"), help="folder of all runs, to resume from")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="names of rows, or patterns: 'kinds/*'; gpu/* needs to be named")
    parser.add_argument("--seeds", nargs="+", type=int, help="instead of those that the rows name")
    parser.add_argument("--minutes", type=float, help="then write a checkpoint and stop, with code 3")
    parser.add_argument("--threads", type=int, default=1, help="of torch: with more than one the last digits may differ")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON of all numbers")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page with the tables")
    parser.add_argument("--readme", type=Path, default=README, help="the page with the short one")
    parser.add_argument("--list", action="store_true", help="rows, what is known of them, and the time that the others take")
    parser.add_argument("--table", action="store_true", help="draw the tables from the JSON, and run nothing")
    parser.add_argument("--curve", action="store_true", help="draw what a longer pretraining gains, and run nothing")
    parser.add_argument("--again", action="store_true", help="measure known rows again, from nothing: do the numbers agree?")
    parser.add_argument("--speed", action="store_true", help="resident pretraining beside the model's step on made-up images")
    told = parser.parse_args(arguments)
    torch.set_num_threads(told.threads)
    done, after = True, partial(draw, told.page, told.readme, told.results)
    try:
        chosen = jobs(choose(told.only), told.seeds)
        if told.list:
            show(chosen, read(told.results))
            return 0
        if told.speed:
            config = BY_NAME["gpu/gmml" if torch.cuda.is_available() else "main/caltech-gmml"].pretrain
            assert config is not None
            found = {**speed(config, open_images(config.data, told.data).train), "machine": machine()}
            add(told.results, {f"speed {'gpu' if torch.cuda.is_available() else 'cpu'}": found})
            print(f"{found['recipe']:.0f} img/s, {found['share']:.1%} of the model's own step")
        elif told.curve:
            curve.save(read(told.results))
        elif not told.table:
            until = None if told.minutes is None else time.monotonic() + 60 * told.minutes
            place = Place(data=told.data, runs=told.runs, until=until)
            done = run(chosen, place, told.results, again=told.again, tell=partial(print, flush=True), after=after)
        after()
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0 if done else STOPPED


def draw(page: Path, readme: Path, results: Path) -> None:
    """The tables of both pages, from the JSON.

    Raises:
        UsageError: a page is missing, or its markers.
    """
    if importlib.util.find_spec("scipy") is None:
        print(f"The numbers are in {results}; the tables need scipy: draw them elsewhere, with --table.")
        return
    write_into(page, read(results))
    write_short(readme, read(results))


def choose(patterns: Sequence[str] | None) -> list[Row]:
    """The rows that are asked for; all but gpu/* where nothing is.

    Raises:
        UsageError: a pattern that fits no row.
    """
    for pattern in patterns or ():
        if not any(fnmatchcase(row.name, pattern) for row in ROWS):
            groups = ", ".join(dict.fromkeys(f"{row.group}/*" for row in ROWS))
            raise UsageError(f"claims: no row is named {pattern!r}. There are {groups}; --list shows them all.")
    return [
        row for row in ROWS if (row.group != "gpu" if patterns is None else any(fnmatchcase(row.name, one) for one in patterns))
    ]


def show(chosen: Sequence[tuple[Row, int]], results: Results) -> None:
    """Print what is known and what is not, with the time that other seeds of the row took."""
    total = 0.0
    for row, seed in chosen:
        found, others = results.get(key(row, seed)), [one["seconds"] for one in known_jobs(row, results)]
        told = f"~ {clock(sum(others) / len(others))}" if others else "not run"
        if found and whole(row, found):
            told = f"{found['top1']:6.2f} %"
        elif others:
            total += sum(others) / len(others)
        print(f"{key(row, seed):<40} {told:<12} {row.what}")
    print(f"{len(chosen)} jobs; those of rows that were run with another seed take about {clock(total)}.")


if __name__ == "__main__":
    sys.exit(main())
