"""``python -m benchmarks.tuning --data FOLDER``: the search of `benchmarks.tuning.grid`, as far as it is not known yet.

Run the same command again to resume: a job whose result is known is skipped, one that was stopped goes on from its checkpoint.
Exit codes: 0 all done, 2 nothing done, 3 stopped.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from benchmarks.claims.run import Place, StoppedError, add, machine, read
from benchmarks.tuning.grid import BASE, SEEDS, configure
from benchmarks.tuning.readout import measure, score, thumbnails
from benchmarks.tuning.search import Search, known, runner
from gmml_models.errors import UsageError
from gmml_models.recipes.pretraining import build_objective

RESULTS = Path(__file__).parents[1] / "results" / "tuning.json"


def main(arguments: list[str] | None = None) -> int:
    """Run, or show; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the unpacked packs")
    parser.add_argument("--runs", type=Path, default=Path("runs/tuning"), help="folder of all runs, to resume from")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON of all numbers")
    parser.add_argument("--show", action="store_true", help="what is known and what it decided; run nothing")
    told = parser.parse_args(arguments)
    if told.show:
        for decision in Search(known=known(told.results)).decisions():
            print(decision["axis"], decision["best"], decision["scores"])
        return 0
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            references(told.data, told.results)
            search = Search(known=known(told.results), run=runner(Place(data=told.data, runs=told.runs), told.results, tell))
            for decision in search.decisions():
                tell(f"{decision['axis']}: {decision['best']}, {decision['scores']}")
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    except StoppedError:
        tell("stopped; run the same command again to resume")
        return 3
    return 0


def references(data: Path, results: Path) -> None:
    """What needs no training: an encoder as chance made it, and thumbnails."""
    done = read(results)
    for seed in SEEDS:
        if f"untrained seed {seed}" not in done:
            measured = measure(build_objective(configure(BASE, seed)).autoencoder, data)
            number, where = score(measured)
            add(results, {f"untrained seed {seed}": {"score": number, "where": where, "measured": measured, "machine": machine()}})
            tell(f"untrained seed {seed}: {number:.2f} at {where}")
    if "thumbnails" not in done:
        add(results, {"thumbnails": {"measured": thumbnails(data), "machine": machine()}})


def tell(words: str) -> None:
    """Print a line with the time."""
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {words}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
