"""The parts of a job: a pretraining, a fine-tuning, a measuring of features. Each has a folder named by what it is.

Two rows that ask for the same part with the same seed find the same folder, so it is made once. A part that was stopped goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from benchmarks.claims.images import open_images
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig, TrainConfig, record
from gmml_models.recipes.engine.job import Outcome
from gmml_models.recipes.engine.record import write_aside
from gmml_models.recipes.evaluation import evaluate
from gmml_models.recipes.finetuning import finetune, measures
from gmml_models.recipes.pretraining import build_objective, pretrain

_RESULT = "part.json"


class TakenError(Exception):
    """Another process is at this part."""


class StoppedError(Exception):
    """The time is over, or a signal came: the same command goes on."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where images are, where runs go, and how long they may take.

    Attributes:
        data: the folder of the packs.
        runs: the folder of all parts.
        until: on the clock of `time.monotonic`, when to stop; None: at the end.
        waits: wait for a part that another process is at, instead of raising `TakenError`.
    """

    data: Path
    runs: Path
    until: float | None = None
    waits: bool = False

    def minutes_left(self) -> float | None:
        """For one more run.

        Raises:
            StoppedError: none.
        """
        if self.until is None:
            return None
        left = (self.until - time.monotonic()) / 60
        if left <= 0:
            raise StoppedError
        return left


def named(config: TrainConfig, *, after: str = "") -> str:
    """The folder of a training: what it is in words, then a hash of all settings that are not at their defaults, then the seed.

    Args:
        config: as `benchmarks.claims.rows` declares it, with the seed of the job.
        after: the folder of the pretraining in front of it.
    """
    said = identity(config)
    kind = config.method if isinstance(config, PretrainConfig) else "tuned" if after else "scratch"
    text = json.dumps({"kind": config.kind, **said, "after": after}, sort_keys=True)
    short = hashlib.sha256(text.encode()).hexdigest()[:10]
    return f"{kind}-{config.data.replace('/', '-')}-{config.epochs}ep-{short}-s{config.seed}"


def identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide a result, but for the weights, as JSON has them; those at their defaults are left out."""
    told = record(config)
    free = {one.name for one in fields(config) if one.metadata.get("free")} | {"out", "seed", "weights"}
    return {one.name: told[one.name] for one in fields(config) if one.name not in free and getattr(config, one.name) != one.default}


def pretrained(config: PretrainConfig, place: Place) -> dict[str, Any]:
    """Pretrain, or go on with it; what it came to.

    Returns:
        ``loss`` of the last epoch, ``images_per_second``, ``seconds`` and ``folder``.
    """
    folder = place.runs / named(config)
    with _claimed(folder, place) as known:
        if known is not None:
            return known
        images = open_images(config.data, place.data).train
        outcome = pretrain(replace(config, out=folder, stop_after=place.minutes_left()), dataset=images)
        return _kept(folder, outcome, {"loss": float(outcome.history[-1]["loss"])} if outcome.history else {})


def finetuned(config: FinetuneConfig, place: Place, before: str = "") -> dict[str, Any]:
    """Fine-tune, or go on with it; what it came to.

    Args:
        config: without ``weights``.
        place: where.
        before: the folder of the pretraining in ``place.runs``; from scratch without.

    Returns:
        ``top1`` and ``top5`` of the last epoch in percent, ``images_per_second``, ``seconds`` and ``folder``.
    """
    folder = place.runs / named(config, after=before)
    with _claimed(folder, place) as known:
        if known is not None:
            return known
        images = open_images(config.data, place.data)
        start: dict[str, Any] = {}
        if before:  # weights bring their model
            start = {"weights": str(place.runs / before / "weights"), "model": FinetuneConfig.model}
        outcome = finetune(
            replace(config, out=folder, stop_after=place.minutes_left(), **start), dataset=images.train, test_dataset=images.test
        )
        last = measures(outcome)[-1] if outcome.finished else {}
        found: dict[str, Any] = {name: value for name, value in last.items() if name in ("top1", "top5")}
        return _kept(folder, outcome, found)


def probed(config: FinetuneConfig, place: Place, before: str = "") -> dict[str, Any]:
    """k-NN and linear probe of the features that a fine-tuning starts from: pretrained ones, or those of an untrained encoder.

    Returns:
        ``knn`` (20 neighbours, weighted) and ``linear``, top-1 in percent, ``seconds`` and ``folder``.
    """
    short = hashlib.sha256(f"{before} {config.model} {config.seed} {config.data} {config.pool}".encode()).hexdigest()[:10]
    folder = place.runs / f"probe-{config.data.replace('/', '-')}-{short}-s{config.seed}"
    with _claimed(folder, place) as known:
        if known is not None:
            return known
        place.minutes_left()
        began = time.monotonic()
        weights = place.runs / before / "weights"
        if not before:
            weights = folder / "untrained"
            model = PretrainConfig(model=config.model, img_size=config.img_size, patch_size=config.patch_size, seed=config.seed)
            build_objective(model).exported().save_pretrained(weights)
        images = open_images(config.data, place.data)
        # else each process asks for every core, and 12 s become 200
        with threadpool_limits(torch.get_num_threads()):
            rows = evaluate(
                EvaluateConfig(
                    weights=str(weights), out=folder, seeds=(config.seed,), pool=config.pool, cpu=config.cpu, workers=config.workers
                ),
                dataset=images.train,
                test_dataset=images.test,
            )
        top1 = {row.measure: row.values["top1"] for row in rows}
        found = {"knn": top1["20-NN, weighted"], "linear": top1["linear probe"], "seconds": time.monotonic() - began}
        return _finished(folder, found)


@contextmanager
def _claimed(folder: Path, place: Place) -> Iterator[dict[str, Any] | None]:
    """Hold a part for this process; what it came to, if that is known already."""
    place.runs.mkdir(parents=True, exist_ok=True)
    with (place.runs / f".{folder.name}.lock").open("w") as lock:  # the system frees it, however the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if place.waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TakenError(folder.name) from error
        path = folder / _RESULT
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        yield known if known.get("finished") else None


def _kept(folder: Path, outcome: Outcome, found: dict[str, Any]) -> dict[str, Any]:
    """Add this call's time to that of the calls before; a training that was stopped ends the job."""
    path = folder / _RESULT
    before = json.loads(path.read_text(encoding="utf-8")).get("seconds", 0.0) if path.exists() else 0.0
    found = {**found, "seconds": before + outcome.seconds, "images_per_second": outcome.images_per_second}
    if not outcome.finished:
        write_aside(path, json.dumps({"seconds": found["seconds"]}))
        raise StoppedError
    return _finished(folder, found)


def _finished(folder: Path, found: dict[str, Any]) -> dict[str, Any]:
    found = {**found, "finished": True, "folder": folder.name, "threads": torch.get_num_threads()}
    try:
        write_aside(folder / _RESULT, json.dumps(found, indent=2))
    except OSError as error:
        raise UsageError(f"claims: cannot write to {folder} ({error}). Make room, then give the same command again.") from error
    return found
