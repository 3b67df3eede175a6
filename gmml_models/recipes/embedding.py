"""Writes the features of every image in a folder as npz, CSV or parquet.

    gmml embed --weights gmml_vit_micro_patch8_64.openclipart --data FOLDER --out features.npz

Finished batches are kept in a folder next to the file: run the same command again to resume.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from gmml_models.atomic_write import write_aside
from gmml_models.data.dataset import Source
from gmml_models.data.loader import every_image, workers_for
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.models.encoders import evaluating
from gmml_models.models.pooling import check_pool, pooled
from gmml_models.recipes.config import EmbedConfig
from gmml_models.recipes.labelled_data import tell, tell_unreadable
from gmml_models.recipes.start_weights import open_weights, view_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from gmml_models.data.loaders import Batch

_WHO = "gmml embed"
KINDS = (".npz", ".csv", ".parquet")


class Embedded(NamedTuple):
    """What was written.

    Attributes:
        path: the file.
        images: the number of rows in the file.
        width: the width of a feature.
        left_out: the number of images that could not be read, and of other files that may be images.
    """

    path: Path
    images: int
    width: int
    left_out: int


def embed(config: EmbedConfig, *, dataset: Any = None, progress: Callable[[int, int], None] = lambda done, of: None) -> Embedded:
    """Write the features of all images in the order of the data, by default those that the card's numbers were measured with.

    The file has the names of the images and their features: in npz the arrays ``names``, ``features`` (float32) and ``about``
    (JSON: weights, their sha256, pooling, size, normalisation); in CSV the columns ``name``, ``f0``, ``f1``, ...; in parquet
    ``name`` and ``features``, a list per row, with ``about`` in its metadata.

    Args:
        config: see `EmbedConfig`.
        dataset: any map-style data set in Python, instead of ``config.data``.
        progress: a function that is called with the number of finished images and the total.

    Raises:
        UsageError: something cannot be read or written, the file already exists, or the parts belong to other images or options.
    """
    _check(config)
    start = open_weights(config.weights, who=_WHO, img_size=config.img_size)
    encoder, pool = start.encoder, config.pool or start.measured
    config = replace(config, in_chans=encoder.patch_embed.proj.in_channels)
    try:
        check_pool(_WHO, encoder, pool, last_blocks=config.last_blocks)
    except ValueError as error:
        raise UsageError(str(error)) from error
    source = open_source(config, purpose="pretrain", dataset=dataset)
    if not isinstance(source, Source):
        raise UsageError(f"{_WHO}: a stream does not support access by index. Give a folder, a tar, hfds/... or torch/...")
    tell(_WHO, source)
    device = torch.device("cuda" if torch.cuda.is_available() and not config.cpu else "cpu")
    plan = view_of(start, config)
    about = {
        "weights": config.weights,
        "sha256": start.sha256,
        "pool": pool,
        **({"last_blocks": config.last_blocks} if config.last_blocks > 1 else {}),
        "size": list(plan.size),
        "mean": list(plan.mean),
        "std": list(plan.std),
    }
    parts = _Parts(config.out, {**about, "images": _known(source), "at_once": config.batch_size})
    encoder.to(device)
    turns = [range(first, min(first + config.batch_size, len(source))) for first in range(0, len(source), config.batch_size)]
    left = [turn for turn in turns if not parts.has(turn.start)]
    done = len(source) - sum(map(len, left))
    progress(done, len(source))
    workers = workers_for(device, config.workers)
    batches: Iterator[Batch] = every_image(source, plan, left, device=device, workers=workers, transform=None, broken=source.broken)
    with evaluating(encoder), torch.inference_mode():
        for batch in batches:
            vectors = pooled(encoder, batch.views[0], pool, last_blocks=config.last_blocks).float().cpu().numpy()
            first = int(batch.index[0]) // config.batch_size * config.batch_size
            parts.keep(first, batch.index.numpy(), vectors)
            done = min(first + config.batch_size, len(source))
            progress(done, len(source))
    numbers, vectors = parts.whole([turn.start for turn in turns])
    tell_unreadable(_WHO, source, "images")
    if not len(numbers):
        raise UsageError(f"{_WHO}: none of the {len(source)} images could be read.")
    names = [source.name(int(number)) for number in numbers]
    try:
        WRITE[config.out.suffix](config.out, names, vectors, about)
    except OSError as error:
        raise UsageError(
            f"{_WHO}: {config.out} cannot be written ({error}). The parts are kept: run the same command again."
        ) from error
    parts.remove()
    missing = len(source) - len(numbers)
    return Embedded(config.out, len(numbers), vectors.shape[1], missing + sum(one.lost for one in source.left))


class _Parts:
    """The folder of finished batches, with one file per batch and a record of the options that they were made with."""

    def __init__(self, out: Path, about: dict[str, Any]) -> None:
        self.folder = out.with_name(f"{out.name}.parts")
        told = self.folder / "about.json"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not told.exists():
                write_aside(told, json.dumps(about, indent=1))
            before = json.loads(told.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{_WHO}: {self.folder} cannot be used ({error}). Remove the folder, or give another --out."
            ) from error
        other = [name for name, value in json.loads(json.dumps(about)).items() if before.get(name) != value]
        if other:
            raise UsageError(
                f"{_WHO}: {self.folder} holds parts made with other {', '.join(other)}. Use the same options as before, or remove "
                "that folder to start over."
            )

    def has(self, first: int) -> bool:
        return (self.folder / f"{first:09d}.npz").exists()

    def keep(self, first: int, numbers: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        place = self.folder / f"{first:09d}.npz"
        aside = place.with_name(f".{place.name}")
        try:
            np.savez(aside, numbers=numbers, vectors=vectors)
            aside.replace(place)
        except OSError as error:
            raise UsageError(
                f"{_WHO}: {place} cannot be written ({error}). Free some space, then run the same command again."
            ) from error

    def whole(self, firsts: list[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Read all finished batches, in order, without those that have no readable image."""
        found = []
        for first in firsts:
            if self.has(first):
                with np.load(self.folder / f"{first:09d}.npz") as part:
                    found.append((part["numbers"], part["vectors"]))
        if not found:
            return np.empty(0, np.int64), np.empty((0, 0), np.float32)
        numbers, vectors = zip(*found, strict=True)
        return np.concatenate(numbers), np.concatenate(vectors)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _known(source: Source) -> Any:
    """The identity by which the images are recognised when the command is resumed."""
    identity = source.identity()
    return len(source) if identity is None else list(identity)


def _write_npz(path: Path, names: list[str], vectors: NDArray[np.float32], about: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}")
    np.savez(aside, names=np.array(names), features=vectors, about=np.array(json.dumps(about)))
    aside.replace(path)


def _write_csv(path: Path, names: list[str], vectors: NDArray[np.float32], about: dict[str, Any]) -> None:
    aside = path.with_name(f".{path.name}")
    with aside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(f"f{number}" for number in range(vectors.shape[1]))])
        writer.writerows([name, *(f"{value:.9g}" for value in vector)] for name, vector in zip(names, vectors, strict=True))
    aside.replace(path)


def _write_parquet(path: Path, names: list[str], vectors: NDArray[np.float32], about: dict[str, Any]) -> None:
    import pyarrow  # type: ignore[import-untyped, unused-ignore]  # no types, and not everywhere
    import pyarrow.parquet  # type: ignore[import-untyped, unused-ignore]  # likewise

    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(vectors.reshape(-1)), vectors.shape[1])
    table = pyarrow.table({"name": names, "features": values}).replace_schema_metadata({"about": json.dumps(about)})
    aside = path.with_name(f".{path.name}")
    pyarrow.parquet.write_table(table, aside)
    aside.replace(path)


WRITE = dict(zip(KINDS, (_write_npz, _write_csv, _write_parquet), strict=True))


def _check(config: EmbedConfig) -> None:
    if not config.weights:
        raise UsageError(f"{_WHO}: no weights. Give --weights FOLDER, a Hub name, or a name that gmml models lists.")
    if config.out.suffix not in KINDS:
        raise UsageError(
            f"{_WHO}: --out {config.out} does not end in one of {', '.join(KINDS)}. Give, for example, --out features.npz."
        )
    if config.out.suffix == ".parquet" and find_spec("pyarrow") is None:
        raise UsageError(f"{_WHO}: parquet needs the package pyarrow. Install it: pip install pyarrow; or give --out features.npz.")
    if config.out.exists():
        raise UsageError(f"{_WHO}: {config.out} already exists. Give another --out, or remove the file.")
    if config.batch_size < 1:
        raise UsageError(f"{_WHO}: batch_size={config.batch_size} is below 1. Give a whole number of at least 1.")
