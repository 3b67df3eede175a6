"""The rows at the paper's size, for one GPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.claims.row import Row, beats, views_in_words
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig

GPU_GRID = ((1e-3, True), (2e-3, True), (1e-3, False))
"""Learning rates at 512 images, and with MixUp and CutMix or without, that ``gpu/tune-...`` tries from scratch."""
GPU_TUNED: Mapping[str, Any] = {"lr": 1e-3, "mixed": False}
"""Of the grid the one that did best from scratch on the images held out."""

_MODEL = "vit_tiny_patch16_224"
_GPU: dict[str, Any] = {"model": _MODEL, "resident": True, "workers": 6, "compile": True}


def gpu_rows(data: str, seeds: tuple[int, ...]) -> list[Row]:
    """At the paper's size, for one GPU: never run unless it is asked for by name."""
    before = PretrainConfig(data=data, epochs=800, views=1, batch_size=256, pictures_every=0, **_GPU)
    tune = [
        Row(
            name=f"gpu/tune-{rate:g}-{'mixed' if mixed else 'plain'}",
            what=f"from scratch, learning rate {rate:g} at 512 images, {views_in_words(mixed)}; on a fifth of the images, held out",
            stage=20,
            finetune=_tuned(f"{data}/held", epochs=100, lr=rate, mixed=mixed),
        )
        for rate, mixed in GPU_GRID
    ]
    base = _tuned(data, **GPU_TUNED)
    scratch = Row(name="gpu/scratch", what="from scratch", finetune=base, seeds=seeds, stage=21, repeats=23)
    gmml = replace(scratch, name="gpu/gmml", what="GMML", pretrain=before, claims=(beats(scratch),))
    rules = {"gmml_reference": "gmml_reference", "mae": "mae", "simmim": "simmim", "beit": "beit"}
    masks = [
        Row(name=f"gpu/{name}", what=f"the masks of {name}", finetune=base, pretrain=replace(before, corruption=rule), stage=22)
        for name, rule in rules.items()
    ]
    return [*tune, scratch, gmml, *masks]


def _tuned(data: str, *, epochs: int = 200, lr: float, mixed: bool) -> FinetuneConfig:
    """Fine-tuning on resident images, which have crops and flips; with MixUp and CutMix as DeiT where ``mixed``."""
    mixes: dict[str, Any] = {} if mixed else {"mixup": 0.0, "cutmix": 0.0}
    return FinetuneConfig(
        data=data,
        pool="mean",
        epochs=epochs,
        batch_size=128,
        lr=lr,
        auto_augment=None,
        erasing=0.0,
        test_every=1_000_000,  # at the end alone: what is measured on the way decides nothing
        **mixes,
        **_GPU,
    )
