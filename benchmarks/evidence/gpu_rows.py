"""The rows at the paper's size, for one GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from benchmarks.evidence.row import Row, beats
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig

_GPU: dict[str, Any] = {"batch_size": 256, "workers": 14, "checkpoint_every": 0}
_MODEL = "vit_tiny_patch16_224"


def gpu_rows(data: str, seeds: tuple[int, ...]) -> list[Row]:
    """At the paper's size, for one GPU: never run unless it is asked for by name."""
    base = FinetuneConfig(data=data, model=_MODEL, pool="mean", epochs=200, test_every=1_000_000, **_GPU)
    before = PretrainConfig(data=data, model=_MODEL, epochs=800, views=1, resident=True, pictures_every=200, **_GPU)
    tune = [
        Row(
            name=f"gpu/tune-{rate:g}",
            what=f"from scratch, learning rate {rate:g} at 512 images; on a fifth of the training images, held out",
            stage=20,
            finetune=replace(base, data=f"{data}/held", lr=rate),
        )
        for rate in (2.5e-4, 5e-4, 1e-3)
    ]
    scratch = Row(name="gpu/scratch", what="from scratch", finetune=base, seeds=seeds, stage=21, repeats=23)
    gmml = replace(scratch, name="gpu/gmml", what="GMML", pretrain=before, claims=(beats(scratch),))
    rules = {"gmml_reference": "gmml_reference", "mae": "mae", "simmim": "simmim", "beit": "beit"}
    masks = [
        Row(name=f"gpu/{name}", what=f"the masks of {name}", finetune=base, pretrain=replace(before, corruption=rule), stage=22)
        for name, rule in rules.items()
    ]
    return [*tune, scratch, gmml, *masks]
