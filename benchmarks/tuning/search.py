"""The search: every job that is not known yet, and what follows from those that are."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.claims.run import Place, add, identity, machine, named, pretrained, read
from benchmarks.tuning.grid import AFTER, AXES, BASE, SEEDS, Axis, configure
from benchmarks.tuning.readout import measure, score
from gmml_models.models.autoencoder import GMMLAutoencoder

Settings = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Search:
    """Where results stand, and who runs a job that is not among them.

    Attributes:
        known: key -> result of a job.
        run: settings, seed and a name for the reader -> the result; None: nothing is run, and the search ends where it needs to.
    """

    known: dict[str, dict[str, Any]]
    run: Callable[[Settings, int, str], dict[str, Any]] | None = None

    def decisions(self) -> Iterator[dict[str, Any]]:
        """What each axis came to, in order, as far as jobs are known or can be run."""
        best: Settings = BASE
        for axis in AXES:
            found = self.decide(axis, best)
            if found is None:
                return
            best = found["settings"]
            yield {**found, "settings": identity(configure(best, 0))}
        for name, change in AFTER.items():
            numbers = [self.number({**best, **change}, seed, f"after/{name}") for seed in SEEDS]
            known = [one for one in numbers if one is not None]
            if len(known) < len(SEEDS):
                return
            yield {"axis": "after", "best": name, "scores": {name: known}}

    def decide(self, axis: Axis, best: Settings) -> dict[str, Any] | None:
        """The option with the highest mean over the seeds, among the two that are highest with the first; None: not known."""
        options = {name: {**best, **change} for name, change in axis.options.items()}
        scores: dict[str, list[float]] = {}
        for name, settings in options.items():
            number = self.number(settings, SEEDS[0], f"{axis.name}/{name}")
            if number is None:
                return None
            scores[name] = [number]
        finalists = sorted(options, key=lambda name: -scores[name][0])[:2]
        for seed in SEEDS[1:]:
            for name in finalists:
                number = self.number(options[name], seed, f"{axis.name}/{name}")
                if number is None:
                    return None
                scores[name].append(number)
        winner = max(finalists, key=lambda name: mean(scores[name]))
        return {"axis": axis.name, "best": winner, "scores": scores, "settings": options[winner]}

    def number(self, settings: Settings, seed: int, name: str) -> float | None:
        """The score of a job, run where it is not known."""
        key = named(configure(settings, seed))
        if key not in self.known:
            if self.run is None:
                return None
            self.known[key] = self.run(settings, seed, name)
        return float(self.known[key]["score"])


def runner(place: Place, results: Path, tell: Callable[[str], None]) -> Callable[[Settings, int, str], dict[str, Any]]:
    """What runs a job of a search and writes its result: settings, the measures of every block, the time, the machine."""

    def run(settings: Settings, seed: int, name: str) -> dict[str, Any]:
        config = configure(settings, seed)
        key = named(config)
        tell(f"{name} seed {seed}: {key}")
        part = pretrained(replace(config, checkpoint_every=150), place)
        model = GMMLAutoencoder.from_pretrained(place.runs / part["folder"] / "weights")
        measured = measure(model, place.data)
        number, where = score(measured)
        found = {
            "name": name,
            "seed": seed,
            "score": number,
            "where": where,
            "measured": measured,
            "loss": part["loss"],
            "seconds": part["seconds"],
            "images_per_second": part["images_per_second"],
            "settings": identity(config),
            "machine": {**machine(), "commit": commit()},
        }
        add(results, {key: found})
        tell(f"{name} seed {seed}: {number:.2f} at {where}, {part['seconds'] / 60:.1f} min")
        return found

    return run


def known(results: Path) -> dict[str, dict[str, Any]]:
    """The jobs of a file of results."""
    return {key: found for key, found in read(results).items() if "settings" in found}


def commit() -> str:
    """Of the code that ran; empty outside a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],  # whichever git there is
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip()
