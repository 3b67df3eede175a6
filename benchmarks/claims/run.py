"""Jobs, one after the other: what is known is skipped, what was stopped goes on, what another process is at comes later."""

from __future__ import annotations

import fcntl
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.parts import Place, StoppedError, TakenError, finetuned, identity, named, pretrained, probed
from benchmarks.claims.row import Row
from benchmarks.claims.rows import IMAGES, SPEED
from gmml_models.bench import cpu_name
from gmml_models.recipes.classify.table import versions
from gmml_models.recipes.engine.record import write_aside

Results = dict[str, dict[str, Any]]
"""By ``ROW seed N``: settings, numbers, times, command and machine of a job."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Jobs, and who is told about them.

    Attributes:
        jobs: from `benchmarks.claims.row.jobs`, done in this order.
        place: where images and runs are.
        results: the JSON of all numbers; every job adds its own at its end.
        tell: is told how it stands.
        after: called when numbers have come.
    """

    jobs: Sequence[tuple[Row, int]]
    place: Place
    results: Path
    tell: Callable[[str], None] = print
    after: Callable[[], None] = lambda: None


def run(task: Task) -> bool:
    """Do jobs; several processes may be at the same ones, and share them out among themselves.

    Returns:
        True if all are done; False if the time is over or a signal came, and the same call goes on.

    Raises:
        UsageError: a pack is missing, or a run cannot go on.
    """
    waiting = list(task.jobs)
    for waits in (False, True):  # first whatever nobody else is at
        left = []
        for row, seed in waiting:
            name = key(row, seed)
            if whole(row, read(task.results).get(name)):
                continue
            task.tell(f"{name}: {row.what}")
            try:
                found = job(row, seed, replace(task.place, waits=waits))
            except TakenError as taken:
                task.tell(f"{name}: another process is at {taken}; later")
                left.append((row, seed))
                continue
            except StoppedError:
                task.tell(f"{name}: stopped; the same command goes on")
                return False
            add(task.results, {name: found})
            task.after()
            top1, knn, linear = (f"{found[measure]:.2f} %" for measure in ("top1", "knn", "linear"))
            task.tell(f"{name}: {top1} after fine-tuning, {knn} k-NN, {linear} linear probe")
        waiting = left
    return True


def job(row: Row, seed: int, place: Place) -> dict[str, Any]:
    """All parts of one row with one seed: pretrain, fine-tune, measure the features that the fine-tuning began with.

    Returns:
        ``top1`` and ``top5`` of the last epoch of fine-tuning (never the best one), ``knn``, ``linear``, in percent; ``loss`` at
        the end of pretraining; ``parts`` with their seconds and images a second; ``settings``, ``command`` and ``machine``.

    Raises:
        TakenError: another process is at a part of it.
        StoppedError: the time is over.
        UsageError: a pack is missing, or a run cannot go on.
    """
    parts: dict[str, Any] = {}
    before = ""
    if row.pretrain is not None:
        parts["pretrain"] = pretrained(replace(row.pretrain, seed=seed), place)
        before = parts["pretrain"]["folder"]
    tuning = replace(row.finetune, seed=seed)
    parts["finetune"] = finetuned(tuning, place, before)
    parts["probe"] = probed(tuning, place, before)
    return {
        "row": row.name,
        "seed": seed,
        "top1": parts["finetune"]["top1"],
        "top5": parts["finetune"].get("top5"),  # none below five classes
        "knn": parts["probe"]["knn"],
        "linear": parts["probe"]["linear"],
        "loss": parts.get("pretrain", {}).get("loss"),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "parts": parts,
        "settings": settings(row),
        "command": command(row),
        "machine": machine(),
    }


def key(row: Row, seed: int) -> str:
    """The name of a job."""
    return f"{row.name} seed {seed}"


def settings(row: Row) -> dict[str, Any]:
    """Everything that decides the numbers of a row, but the seed."""
    return {
        "pretrain": None if row.pretrain is None else identity(row.pretrain),
        "finetune": identity(row.finetune),
    }


def same(row: Row, found: Mapping[str, Any] | None) -> bool:
    """A job is known, with the settings that the row has now."""
    return found is not None and found["settings"] == settings(row)


def whole(row: Row, found: Mapping[str, Any] | None) -> bool:
    """It is known, and nothing of it was left out: a run whose time was over may have measured a part."""
    return found is not None and same(row, found) and all(found[measure] is not None for measure in ("top1", "knn", "linear"))


def command(row: Row) -> str:
    """What measures a row again."""
    return f"make claims DATA=FOLDER ONLY={row.name}"


def machine() -> dict[str, Any]:
    """Hardware, versions and date."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    date, system = datetime.now(UTC).date().isoformat(), f"{platform.system()} {platform.machine()}"
    return {"cpu": cpu_name(), "gpu": gpu, "threads": torch.get_num_threads(), "date": date, "system": system, **versions()}


def read(results: Path) -> Results:
    """All jobs that are known."""
    return dict(json.loads(results.read_text(encoding="utf-8"))) if results.exists() else {}


def add(results: Path, found: Results) -> None:
    """Write jobs into the JSON, beside those that other processes have written meanwhile."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.with_name(f".{results.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_aside(results, json.dumps({**read(results), **found}, indent=1, sort_keys=True))


def estimate(jobs: Sequence[tuple[Row, int]], results: Path) -> float:
    """Seconds that jobs would take on one core, by the speeds noted in `benchmarks.claims.rows`; shared parts count once."""
    known, parts = read(results), dict[str, float]()
    for row, seed in jobs:
        if whole(row, known.get(key(row, seed))):
            continue
        tuning, before = replace(row.finetune, seed=seed), ""
        if row.pretrain is not None:
            pretraining = replace(row.pretrain, seed=seed)
            speed = SPEED["mc_ssl" if pretraining.method == "mc_ssl" and pretraining.terms != "reconstruction" else "gmml"]
            before = named(pretraining)
            parts[before] = pretraining.epochs * IMAGES[pretraining.data] / speed
            parts[f"probe {before}"] = 20.0
        parts[named(tuning, after=before)] = tuning.epochs * IMAGES[tuning.data] / SPEED["finetune"] + 10.0
    return sum(parts.values())
