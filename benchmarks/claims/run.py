"""The runner: jobs, one after the other, each a row with a seed; what is known is skipped, what was stopped is resumed.

A job has up to three parts: a pretraining, a fine-tuning, a measuring of features. A training resumes by itself, as every
recipe does, from the folder that is named by what it is; two rows that ask for the same part with the same seed find the same
folder, so it is made once. Several processes may be at the same jobs, and share them out among themselves.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.claims.images import open_images
from benchmarks.claims.rows import MEASURES, Row
from gmml_models.atomic_write import write_aside
from gmml_models.bench.timing import cpu_name
from gmml_models.data.config import record
from gmml_models.errors import UsageError
from gmml_models.evaluate.report import versions
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from gmml_models.recipes.evaluation import evaluate
from gmml_models.recipes.finetuned_weights import measures
from gmml_models.recipes.finetuning import finetune
from gmml_models.recipes.pretraining import build_objective, pretrain
from gmml_models.train.config import TrainConfig
from gmml_models.train.trainer import Outcome

Results = dict[str, dict[str, Any]]
"""By ``ROW seed N``: settings, numbers, times, command and machine of a job."""


class TakenError(Exception):
    """Another process is at this part."""


class StoppedError(Exception):
    """The time is over, or a signal came: run the same command again to resume."""


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
        left = None if self.until is None else (self.until - time.monotonic()) / 60
        if left is not None and left <= 0:
            raise StoppedError
        return left


def run(
    jobs: Sequence[tuple[Row, int]],
    place: Place,
    results: Path,
    *,
    again: bool = False,
    tell: Callable[[str], None] = print,
    after: Callable[[], None] = lambda: None,
) -> bool:
    """Do the jobs that are not known; or those that are once more, from nothing: does the same command give the same numbers?

    Args:
        jobs: from `benchmarks.claims.rows.jobs`, done in this order.
        place: where images and runs are.
        results: the JSON of all numbers; every job adds its own at its end.
        again: measure the known jobs in ``runs/again``, and note beside their numbers, as ``again``, what came out, where, and
            whether every number was the ``same`` to the last digit.
        tell: is told how it stands.
        after: called when numbers have come.

    Returns:
        True if all are done; False if the time is over or a signal came, and the same call resumes.

    Raises:
        UsageError: a pack is missing, a run cannot be resumed, or nothing is known that could be measured again.
    """
    known = read(results)
    waiting = [(row, seed) for row, seed in jobs if whole(row, known.get(key(row, seed))) == again]
    if again and not waiting:
        raise UsageError("claims: none of these rows has been measured with its present settings. Leave --again out first.")
    for waits in (False, True):  # first whatever nobody else is at
        left = []
        for row, seed in waiting:
            name = key(row, seed)
            first = read(results).get(name, {})
            if not again and whole(row, first):
                continue
            tell(f"{name}: {row.what}")
            try:
                found = job(row, seed, replace(place, waits=waits, runs=place.runs / "again" if again else place.runs))
            except TakenError as taken:
                tell(f"{name}: another process is at {taken}; later")
                left.append((row, seed))
                continue
            except StoppedError:
                tell(f"{name}: stopped; run the same command again to resume")
                return False
            said = ", ".join(f"{MEASURES[measure]} {found[measure]:.2f} %" for measure in row.measures)
            if again:
                numbers = {measure: found[measure] for measure in (*row.measures, "top5", "loss")}
                same = all(first[measure] == number for measure, number in numbers.items())
                found = {**first, "again": {**numbers, "same": same, "machine": found["machine"]}}
                said += f"; {'the same' if same else 'NOT the same'} as before"
            add(results, {name: found})
            after()
            tell(f"{name}: {said}")
        waiting = left
    return True


def job(row: Row, seed: int, place: Place) -> dict[str, Any]:
    """All parts of one row with one seed: pretrain, fine-tune, measure the features that the fine-tuning began with.

    Returns:
        ``top1`` and ``top5`` of the last epoch of fine-tuning (never the best one; None where the row asks for none), ``knn``,
        ``linear``, in percent; ``loss`` at the end of pretraining; ``parts`` with their seconds and images a second;
        ``settings``, ``command`` and ``machine``.

    Raises:
        TakenError: another process is at a part of it.
        StoppedError: the time is over.
        UsageError: a pack is missing, or a run cannot be resumed.
    """
    parts: dict[str, Any] = {}
    if row.pretrain is not None:
        parts["pretrain"] = pretrained(replace(row.pretrain, seed=seed), place)
    before, tuning = parts.get("pretrain", {}).get("folder", ""), replace(row.finetune, seed=seed)
    if "top1" in row.measures:
        parts["finetune"] = finetuned(tuning, place, before)
    parts["probe"] = probed(tuning, place, before)
    return {
        "row": row.name,
        "seed": seed,
        "top1": parts.get("finetune", {}).get("top1"),
        "top5": parts.get("finetune", {}).get("top5"),  # none below five classes
        "knn": parts["probe"]["knn"],
        "linear": parts["probe"]["linear"],
        "loss": parts.get("pretrain", {}).get("loss"),
        "seconds": sum(part["seconds"] for part in parts.values()),
        "parts": parts,
        "settings": settings(row),
        "command": command(row, [seed]),
        "machine": machine(),
    }


def pretrained(config: PretrainConfig, place: Place) -> dict[str, Any]:
    """Pretrain, or resume; what it came to.

    Returns:
        ``loss`` of the last epoch, ``images_per_second``, ``seconds`` and ``folder``.
    """

    def work(folder: Path) -> dict[str, Any]:
        images = open_images(config.data, place.data).train
        outcome = pretrain(replace(config, out=folder, stop_after=place.minutes_left()), dataset=images)
        return {**_of(outcome), "loss": float(outcome.history[-1]["loss"]) if outcome.history else None}

    return _part(named(config), place, work)


def finetuned(config: FinetuneConfig, place: Place, before: str = "") -> dict[str, Any]:
    """Fine-tune, or resume; what it came to.

    Args:
        config: without ``weights``.
        place: where.
        before: the folder of the pretraining in ``place.runs``; from scratch without.

    Returns:
        ``top1`` and ``top5`` of the last epoch in percent, ``images_per_second``, ``seconds`` and ``folder``.
    """
    # weights bring their model
    start: dict[str, Any] = {"weights": str(place.runs / before / "weights"), "model": FinetuneConfig.model} if before else {}

    def work(folder: Path) -> dict[str, Any]:
        images = open_images(config.data, place.data)
        told = replace(config, out=folder, stop_after=place.minutes_left(), **start)
        outcome = finetune(told, dataset=images.train, test_dataset=images.test)
        last = measures(outcome)[-1] if outcome.finished else {}
        return {**_of(outcome), **{name: value for name, value in last.items() if name in ("top1", "top5")}}

    return _part(named(config, after=before), place, work)


def probed(config: FinetuneConfig, place: Place, before: str = "") -> dict[str, Any]:
    """k-NN and linear probe of the features that a fine-tuning starts from: pretrained ones, or those of an untrained encoder.

    Returns:
        ``knn`` (20 neighbours, weighted) and ``linear``, top-1 in percent, ``seconds`` and ``folder``.
    """
    text = f"{before} {config.model} {config.seed} {config.data} {config.pool}"

    def work(folder: Path) -> dict[str, Any]:
        from threadpoolctl import threadpool_limits  # comes with scikit-learn, which trainings do without

        place.minutes_left()
        began, weights = time.monotonic(), place.runs / before / "weights"
        if not before:
            weights = folder / "untrained"
            model = PretrainConfig(model=config.model, img_size=config.img_size, patch_size=config.patch_size, seed=config.seed)
            build_objective(model).exported().save_pretrained(weights)
        told = EvaluateConfig(
            weights=str(weights), out=folder, seeds=(config.seed,), pool=config.pool, cpu=config.cpu, workers=config.workers
        )
        images = open_images(config.data, place.data)
        with threadpool_limits(torch.get_num_threads()):  # else each process asks for every core, and 12 s become 200
            rows = evaluate(told, dataset=images.train, test_dataset=images.test)
        top1 = {row.measure: row.values["top1"] for row in rows}
        found = {"knn": top1["20-NN, weighted"], "linear": top1["linear probe"]}
        return {**found, "finished": True, "seconds": time.monotonic() - began}

    return _part(f"probe-{config.data.replace('/', '-')}-{_short(text)}-s{config.seed}", place, work)


def _of(outcome: Outcome) -> dict[str, Any]:
    return {"finished": outcome.finished, "seconds": outcome.seconds, "images_per_second": outcome.images_per_second}


def _part(name: str, place: Place, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """What a part came to: read where it is finished, else worked at, held for this process; times of all calls are added up."""
    place.runs.mkdir(parents=True, exist_ok=True)
    folder = place.runs / name
    path = folder / "part.json"
    with (place.runs / f".{name}.lock").open("w") as lock:  # the system frees it, however the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if place.waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TakenError(name) from error
        known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if known.get("finished"):
            return known
        found = work(folder)
        found |= {"seconds": known.get("seconds", 0.0) + found["seconds"], "folder": name, "threads": torch.get_num_threads()}
        try:
            write_aside(path, json.dumps(found, indent=2))
        except OSError as error:
            raise UsageError(f"claims: cannot write to {folder} ({error}). Make room, then run the same command again.") from error
    if not found["finished"]:
        raise StoppedError
    return found


def named(config: TrainConfig, *, after: str = "") -> str:
    """The folder of a training: what it is in words, then a hash of all settings that are not at their defaults, then the seed.

    Args:
        config: as `benchmarks.claims.rows` declares it, with the seed of the job.
        after: the folder of the pretraining in front of it.
    """
    kind = config.method if isinstance(config, PretrainConfig) else "tuned" if after else "scratch"
    short = _short(json.dumps({"kind": config.kind, **identity(config), "after": after}, sort_keys=True))
    return f"{kind}-{config.data.replace('/', '-')}-{config.epochs}ep-{short}-s{config.seed}"


def identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that decide a result, but for the weights, as JSON has them; those at their defaults are left out."""
    told = record(config)
    free = {one.name for one in fields(config) if one.metadata.get("free")} | {"out", "seed", "weights"}
    return {one.name: told[one.name] for one in fields(config) if one.name not in free and getattr(config, one.name) != one.default}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def key(row: Row, seed: int) -> str:
    """The name of a job."""
    return f"{row.name} seed {seed}"


def settings(row: Row) -> dict[str, Any]:
    """Everything that decides the numbers of a row, but the seed."""
    return {"pretrain": None if row.pretrain is None else identity(row.pretrain), "finetune": identity(row.finetune)}


def known_jobs(row: Row, results: Results) -> list[dict[str, Any]]:
    """All jobs of a row with the settings that it has now, whatever their seeds; of some a part may be measured alone."""
    wanted = settings(row)
    found = [one for one in results.values() if one.get("row") == row.name and one["settings"] == wanted]
    return sorted(found, key=lambda one: int(one["seed"]))


def whole(row: Row, found: Mapping[str, Any] | None) -> bool:
    """A job is known with the settings of now, and nothing of it was left out: where the time was over a part may be missing."""
    return (
        found is not None and found.get("settings") == settings(row) and all(found[measure] is not None for measure in row.measures)
    )


def command(row: Row, seeds: Iterable[int]) -> str:
    """What measures a row again."""
    return f"make claims DATA=FOLDER ONLY={row.name} SEEDS='{' '.join(map(str, seeds))}'"


def machine() -> dict[str, Any]:
    """Hardware, versions, commit and date."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    date, system = datetime.now(UTC).date().isoformat(), f"{platform.system()} {platform.machine()}"
    told = {"cpu": cpu_name(), "gpu": gpu, "threads": torch.get_num_threads(), "date": date, "system": system, **versions()}
    return told | ({"commit": found} if (found := commit()) else {})


def commit() -> str | None:
    """Of the clone that this runs in, with a plus where files of it were changed; None where there is none."""
    words = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, changed = (
            subprocess.run([*words, *more], capture_output=True, text=True, check=True).stdout.strip()
            for more in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{head}+" if changed else head


def read(results: Path) -> Results:
    """All jobs that are known."""
    return dict(json.loads(results.read_text(encoding="utf-8"))) if results.exists() else {}


def add(results: Path, found: Results) -> None:
    """Write jobs into the JSON, beside those that other processes have written meanwhile."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.with_name(f".{results.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        write_aside(results, json.dumps({**read(results), **found}, indent=1, sort_keys=True))
