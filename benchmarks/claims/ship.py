"""A run of the claims as a model of the zoo: its folder of weights, with what was measured of it written into its card.

``python -m benchmarks.claims.ship weights/openclipart --name gmml_vit_micro_patch8_64.openclipart --runs FOLDER``

The card has the numbers of every row that fine-tunes the same weights, each beside its baselines. These stand in
benchmarks/results/baselines.json; ``--data FOLDER`` measures those that are missing.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

import gmml_models as gm
from benchmarks.claims.__main__ import RESULTS
from benchmarks.claims.rows import BY_NAME, ROWS, Row
from benchmarks.claims.run import Results, command, key, known_jobs, machine, named, read
from benchmarks.claims.shipping import LICENCES, RESEARCH, TESTED, baselines_of, data_of, from_scratch
from benchmarks.claims.table import values
from gmml_models.errors import UsageError
from gmml_models.hub.model_index import LICENCE
from gmml_models.models.encoder_facts import gmacs
from gmml_models.models.registry import WEIGHTS
from gmml_models.recipes.training_log import training_log

_WORDS = {"top1": "fine-tuning, top-1 %", "linear": "linear probe, top-1 %", "knn": "20-NN, top-1 %"}
_BATCH, _ROUNDS = 64, 5


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims.ship", description=__doc__)
    parser.add_argument("row", help="a row with a pretraining, whose numbers are in the results")
    parser.add_argument("--name", required=True, help="of the model: gmml_<encoder>.<data>")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"), help="folder of all runs")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the JSON of all numbers")
    parser.add_argument("--data", type=Path, help="folder of the packs, to measure baselines that are not known yet")
    parser.add_argument("--seed", type=int, default=0, help="which of the runs")
    parser.add_argument("--commit", help="of gmml, that the run was made with, where the results do not say it")
    parser.add_argument("--weights", type=Path, help="the folder of weights, where that of the run is gone")
    parser.add_argument("--half", action="store_true", help="in bfloat16, which takes half of the room")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="folder of the zoo")
    told = parser.parse_args(arguments)
    row = BY_NAME.get(told.row)
    if row is None or row.pretrain is None:
        print(f"ship: {told.row!r} is no row with a pretraining. --list of benchmarks.claims shows rows.")
        return 2
    run = told.runs / named(replace(row.pretrain, seed=told.seed))
    source = told.weights or run / "weights"
    if not source.is_dir():
        print(f"ship: {source} is not there. Run the row first: {command(row, [told.seed])}.")
        return 2
    try:
        model = gm.GMMLAutoencoder.from_pretrained(source)
        about, licence, extras = whole(row, told, run, source, model)
    except UsageError as error:
        print(error)
        return 2
    if told.half:
        model.to(torch.bfloat16)
    model.save_pretrained(told.to / told.name, about=about, license=licence, extras=extras)
    print(f"{told.to / told.name}: {sum(file.stat().st_size for file in (told.to / told.name).iterdir()):,} bytes")
    return 0


def whole(
    row: Row, told: argparse.Namespace, run: Path, source: Path, model: gm.GMMLAutoencoder
) -> tuple[dict[str, Any], str, dict[str, bytes]]:
    """What the card says, the licence of the weights, and the files beside them."""
    assert row.pretrain is not None
    results = {**read(RESULTS), **read(told.results)}
    licence, link, text = LICENCES.get(row.pretrain.data, RESEARCH)
    said = {
        **about(row, told.seed, told.name, source, results=results, data=told.data),
        "cost": cost(model),
        "run": run_of(results.get(key(row, told.seed)), told.seed, told.commit),
        **({"license_link": link} if link else {}),
    }
    extras = training_log(run, title=f"{told.name}, seed {told.seed}")
    if text is not None:
        extras[LICENCE] = text
    return said, licence, extras


def about(
    row: Row, seed: int, name: str, source: Path, *, results: Results | None = None, data: Path | None = None
) -> dict[str, Any]:
    """What the card says: the run's own record, the data, and every measure of every row that tunes the same weights.

    Args:
        row: with a pretraining.
        seed: of the run.
        name: of the model.
        source: its folder of weights.
        results: all numbers; the published ones by default.
        data: the folder of the packs; needed where baselines are not known.

    Raises:
        UsageError: data or baselines that are not known.
    """
    assert row.pretrain is not None
    recorded = json.loads((source / "config.json").read_text(encoding="utf-8"))["gmml"]
    results = read(RESULTS) if results is None else results
    metrics = [one for each in tuned_alike(row) for one in _metrics(each, seed, results, data)]
    kept = {part: recorded[part] for part in ("objective", "recipe", "losses") if part in recorded}
    return {**kept, "name": name, "pool": row.finetune.pool, "data": data_of(row.pretrain.data), "metrics": metrics}


def tuned_alike(row: Row) -> list[Row]:
    """The rows that begin with the same weights, one for each data set that they are tuned on; the row itself first."""
    assert row.pretrain is not None
    wanted, found = named(row.pretrain), {row.finetune.data: row}
    for other in ROWS:
        if other.group == row.group and other.pretrain is not None and named(other.pretrain) == wanted:
            found.setdefault(other.finetune.data, other)
    return list(found.values())


def _metrics(row: Row, seed: int, results: Results, data: Path | None) -> list[dict[str, Any]]:
    """One entry a measure: the number of these weights, the mean over all pretrainings, and the baselines."""
    own = results.get(key(row, seed))
    if own is None or row.finetune.data not in TESTED:
        return []
    dataset = dict(TESTED[row.finetune.data])
    images = dataset.pop("images")
    beside = {"top1": from_scratch(row, results), **baselines_of(row.finetune, data=data)}
    metrics = []
    for measure, words in _WORDS.items():
        if own.get(measure) is None:
            continue
        every, seeds = values(row, results, measure), [int(one["seed"]) for one in known_jobs(row, results)]
        over = {"mean": round(fmean(every), 1), "spread": round(stdev(every), 1), "mean_seeds": seeds} if len(every) > 1 else {}
        metrics.append(
            {
                "name": words,
                "metric": "accuracy",
                "value": round(own[measure], 1),
                "seeds": [seed],
                **over,
                "dataset": dataset,
                "split": "test",
                "images": images,
                "features": "mean of the patch tokens",
                "baselines": beside[measure],
                "measured_by": f"measured by gmml, {own['machine']['date']}",
                "command": command(row, seeds),
            }
        )
    return metrics


def run_of(own: dict[str, Any] | None, seed: int, commit: str | None) -> dict[str, Any]:
    """What the card says of the training: time, hardware, versions, commit, date."""
    if own is None:
        return {"seed": seed, "commit": commit}
    where, part = own["machine"], own["parts"].get("pretrain", {})
    about = ("cpu", "gpu", "threads", "date", "system", "commit")
    hardware = where["gpu"] or f"{where['cpu']}, {part.get('threads', where['threads'])} thread(s), {where['system']}"
    return {
        "seed": seed,
        "commit": where.get("commit") or commit,
        "seconds": part.get("seconds"),
        "images_per_second": part.get("images_per_second"),
        "hardware": hardware,
        "date": where["date"],
        "versions": {name: version for name, version in where.items() if name not in about},
    }


def cost(model: gm.GMMLAutoencoder) -> dict[str, Any]:
    """Multiply-adds of the encoder, and how many images it encodes in a second of one core: the best of a few rounds.

    The time is the processor's own, so that what else the machine does has less of a part in it.
    """
    encoder, threads = model.encoder.eval(), torch.get_num_threads()
    images, seconds = torch.randn(_BATCH, model.in_chans, *model.img_size), []
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for _ in range(_ROUNDS):
                began = time.process_time()
                encoder(images)
                seconds.append(time.process_time() - began)
        where = machine()
    finally:
        torch.set_num_threads(threads)
    on = f"one core of {where['cpu']}, torch {where['torch']}"
    told = f"batches of {_BATCH}, float32, {on}; by processor time, the best of {_ROUNDS}"
    return {"gmacs": round(gmacs(encoder), 4), "images_per_second": round(_BATCH / min(seconds)), "measured_on": told}


if __name__ == "__main__":
    sys.exit(main())
