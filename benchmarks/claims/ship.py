"""A run of the claims as a model of the zoo: its folder of weights, with what was measured of it written into its card.

``python -m benchmarks.claims.ship main/caltech-gmml --name gmml_vit_micro_patch8_64.caltech101 --runs FOLDER``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

import gmml_models as gm
from benchmarks.claims.__main__ import RESULTS
from benchmarks.claims.images import CALTECH, FLOWERS
from benchmarks.claims.rows import BY_NAME, Row
from benchmarks.claims.run import command, key, known_jobs, named, read
from benchmarks.claims.table import values
from gmml_models.models.registry import WEIGHTS

LICENCE = "research use only"
"""Of weights that come from photographs whose licence is not known for certain."""
DATA: Mapping[str, Mapping[str, Any]] = {
    CALTECH: {
        "name": "Caltech-101, a subset: 15 images of each of 101 classes, shorter side 160",
        "images": 1515,
        "licence": "not stated where the images were taken from; single images may carry rights of others: research use only",
    },
    FLOWERS: {
        "name": "Flowers-102, a part: 15 images of each of 89 classes, shorter side 160",
        "images": 1335,
        "licence": "none stated by the authors; copyright stays with the photographers: research use only",
    },
}
TESTED: Mapping[str, str] = {CALTECH: "1,010", FLOWERS: "1,108"}
_WORDS = {
    "top1": "top-1 after fine-tuning, percent",
    "knn": "k-NN (20 neighbours, mean of the patch tokens), percent",
    "linear": "linear probe (mean of the patch tokens), percent",
}


def main(arguments: list[str] | None = None) -> int:
    """Write the folder; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims.ship", description=__doc__)
    parser.add_argument("row", help="a row with a pretraining, whose numbers are in the results")
    parser.add_argument("--name", required=True, help="of the model: gmml_<encoder>.<data>")
    parser.add_argument("--runs", type=Path, default=Path("runs/claims"), help="folder of all runs")
    parser.add_argument("--seed", type=int, default=0, help="which of the runs")
    parser.add_argument("--half", action="store_true", help="in bfloat16, which takes half of the room")
    parser.add_argument("--to", type=Path, default=WEIGHTS, help="folder of the zoo")
    told = parser.parse_args(arguments)
    row = BY_NAME.get(told.row)
    if row is None or row.pretrain is None or row.pretrain.data not in DATA:
        print(f"ship: {told.row!r} is no row with a pretraining on {', '.join(DATA)}. --list of benchmarks.claims shows rows.")
        return 2
    source = told.runs / named(replace(row.pretrain, seed=told.seed)) / "weights"
    if not source.is_dir():
        print(f"ship: {source} is not there. Run the row first: {command(row, [told.seed])}.")
        return 2
    model = gm.GMMLAutoencoder.from_pretrained(source)
    if told.half:
        model.to(torch.bfloat16)
    model.save_pretrained(told.to / told.name, about=about(row, told.seed, told.name, source), license=LICENCE)
    print(f"{told.to / told.name}: {sum(file.stat().st_size for file in (told.to / told.name).iterdir()):,} bytes")
    return 0


def about(row: Row, seed: int, name: str, source: Path) -> dict[str, Any]:
    """What the card says: the run's own record, the data, and every measure over the seeds of its row."""
    assert row.pretrain is not None
    recorded = json.loads((source / "config.json").read_text(encoding="utf-8"))["gmml"]
    results = read(RESULTS)
    own, metrics = results.get(key(row, seed)), []
    others = f"{TESTED[row.pretrain.data]} other images of the same classes"
    for measure, words in _WORDS.items():
        found = values(row, results, measure)
        if found and own is not None:
            metrics.append(
                {
                    "name": f"{words}: {own[measure]:.1f}; mean of {len(found)} seeds",
                    "value": round(fmean(found), 1),
                    "spread": round(stdev(found), 1) if len(found) > 1 else None,
                    "measured_by": f"gmml, on {others}, {own['machine']['date']}",
                    "command": command(row, [one["seed"] for one in known_jobs(row, results)]),
                }
            )
    kept = {part: recorded[part] for part in ("objective", "recipe", "losses") if part in recorded}
    return {**kept, "name": name, "data": dict(DATA[row.pretrain.data]), "metrics": metrics}


if __name__ == "__main__":
    sys.exit(main())
