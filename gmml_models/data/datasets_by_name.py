"""Data sets by timm's names for them, and streams in Python."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import IterableDataset

from gmml_models.data.config import DataConfig
from gmml_models.data.map_dataset import image_and_label_keys
from gmml_models.data.splits import TEST_SPLITS, TRAIN_SPLITS, Purpose
from gmml_models.data.streams import Iterated, Shards, StreamSource
from gmml_models.errors import UsageError


def open_torch(name: str, split: str | None, purpose: Purpose, config: DataConfig) -> Any:
    """Open a data set of torchvision as timm does; nothing is downloaded.

    Raises:
        UsageError: the name is unknown, or ``config.data_root`` does not hold its files.
    """
    from timm.data.dataset_factory import create_dataset

    if config.data_root is None:
        raise UsageError(f"gmml: torch/{name} needs the folder of its files. Give --data-root FOLDER.")
    split = split or ("validation" if purpose == "test" else "train")
    try:
        return create_dataset(f"torch/{name}", root=config.data_root, split=split, download=False)
    except Exception as error:  # every data set has its own way to say no
        raise UsageError(
            f"gmml: torch/{name} could not be opened in {config.data_root} ({type(error).__name__}: {error}). Check the name; to "
            f"download the files, use torchvision.datasets with download=True."
        ) from error


def open_hub(name: str, split: str | None, purpose: Purpose, config: DataConfig) -> Any:
    """Open a data set of the Hugging Face Hub, or a folder that holds one, with undecoded images.

    Raises:
        UsageError: the data set, its split or the library is missing.
    """
    return _load(name, split, purpose, config, streaming=False)


def open_hub_stream(name: str, split: str | None, purpose: Purpose, config: DataConfig) -> StreamSource:
    """Open the same data sets as a stream.

    Raises:
        UsageError: as in `open_hub`; also if the length is not known.
    """
    return stream_of(_load(name, split, purpose, config, streaming=True), config, where=f"hfids/{name}")


def _load(name: str, split: str | None, purpose: Purpose, config: DataConfig, *, streaming: bool) -> Any:
    datasets = _library("datasets", f"hfds/{name}")
    try:
        if split is None:
            split = _pick(name, datasets.get_dataset_split_names(name), purpose)
        found = datasets.load_dataset(name, split=split, streaming=streaming, cache_dir=config.data_root)
    except UsageError:
        raise
    except Exception as error:  # of the Hub's client, of the network, of the data set's own files
        said = " ".join(str(error).split())[:300]
        raise UsageError(
            f"gmml: the data set {name} could not be opened ({type(error).__name__}: {said}). Check the name and split."
        ) from error
    key = image_and_label_keys(found)[0]
    return found if key is None else found.cast_column(key, datasets.Image(decode=False))


def _pick(where: str, splits: Collection[str], purpose: Purpose) -> str:
    wanted = TEST_SPLITS if purpose == "test" else TRAIN_SPLITS
    for name in wanted:
        if name in splits:
            return name
    if purpose != "test" and len(splits) == 1:
        return next(iter(splits))
    raise UsageError(f"gmml: {where} has the splits {sorted(splits)}, but none of {list(wanted)}. Give a split.")


def open_shards(folder: str, split: str | None, purpose: Purpose, config: DataConfig) -> StreamSource:
    """Open shards of webdataset: those named by an _info.json, as in timm; those that match a pattern given as split; or all tars.

    Raises:
        UsageError: there are no shards, the library is missing, or the number of images is not known.
    """
    where = f"wds/{folder}"
    _library("webdataset", where)
    count = 0
    if any((Path(folder) / name).is_file() for name in ("_info.json", "info.json")):
        reader: Any = importlib.import_module("timm.data.readers.reader_wds").ReaderWds
        try:
            found = reader(root=folder, split=split or "train").split_info
        except Exception as error:
            raise UsageError(f"gmml: {where}: its info file does not match ({error}). Give a --split that it lists.") from error
        names, count = list(found.filenames), int(found.num_samples)
    elif split is not None:
        pattern, _, number = split.partition("|")
        names = list(importlib.import_module("webdataset.shardlists").expand_urls(pattern))
        if number:
            count = int(number) if number.isdigit() else 0
    else:
        names = sorted(file.name for file in Path(folder).glob("*.tar"))
    urls = tuple(name if "://" in name or name.startswith("pipe:") else str(Path(folder) / name) for name in names)
    missing = [url for url in urls if "://" not in url and not url.startswith("pipe:") and not Path(url).is_file()]
    if missing or not urls:
        what = (
            f"{len(missing)} shards are missing, the first is {missing[0]}" if missing else f"there are no tars in {folder or 'it'}"
        )
        raise UsageError(
            f"gmml: {where}: {what}. Give wds/FOLDER, and a --split such as 'train-{{0000..0009}}.tar' for some of its tars."
        )
    broken: dict[str, str] = {}
    images = _length(config.stream_images or count, where)
    source = StreamSource(Shards(urls, broken), images=images, channels=config.in_chans, shards=len(urls), where=where)
    source.broken = broken
    return source


def stream_of(dataset: Any, config: DataConfig, *, where: str = "the data set") -> StreamSource:
    """Open a stream in Python.

    Args:
        dataset: an iterable that can be iterated repeatedly.
        config: the config, of which ``in_chans`` and ``stream_images`` are used.
        where: the name of the data for messages.

    Raises:
        UsageError: the data set cannot be iterated, or only once, or its length is not known.
    """
    if not hasattr(dataset, "__iter__") or isinstance(dataset, Iterator):
        cannot = "cannot be iterated" if not hasattr(dataset, "__iter__") else "can be read only once"
        raise UsageError(
            f"gmml: {where}, a {type(dataset).__name__}, {cannot}. "
            "Give a data set with __len__ and __getitem__, or with an __iter__ that starts from the beginning each time."
        )
    splits = getattr(getattr(dataset, "info", None), "splits", None) or {}
    known = getattr(splits.get(str(getattr(dataset, "split", ""))), "num_examples", None) if splits else None
    count = config.stream_images or known or (len(dataset) if hasattr(dataset, "__len__") else 0)
    streamed = type(dataset).__module__.partition(".")[0] == "datasets"
    records = Iterated(dataset, image_and_label_keys(dataset)[0], streamed)
    divides = isinstance(dataset, IterableDataset) and not streamed
    return StreamSource(
        records,
        images=_length(count, where),
        channels=config.in_chans,
        shuffles=streamed,
        divides=divides,
        shards=getattr(dataset, "num_shards", 1) if streamed and hasattr(dataset, "shard") else 1,
        where=where,
    )


def is_stream(dataset: Any) -> bool:
    """Access by index, which a stream does not support, raises an error."""
    return isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__"))


def _length(count: int, where: str) -> int:
    if count < 1:
        raise UsageError(f"gmml: {where} does not say how many images it has. Give --stream-images N.")
    return count


def _library(name: str, where: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(f"gmml: {where} needs the library {name}, which is not installed. Run: pip install {name}") from error
