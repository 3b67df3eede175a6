"""Opens images from folders, tars, a labels.csv, the data sets that timm knows by name, and data sets in Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from gmml_models.data.config import DataConfig, check_normalisation
from gmml_models.data.dataset import Label, Source, Subset, check_readable, few_shot
from gmml_models.data.folders import open_files
from gmml_models.data.holdout import held_out, without_holdout
from gmml_models.data.map_dataset import MapSource
from gmml_models.data.splits import Purpose, Wanted
from gmml_models.errors import UsageError

if TYPE_CHECKING:
    from gmml_models.data.streams import StreamSource

__all__ = ["Label", "Purpose", "Source", "Subset", "few_shot", "open_source"]
_NAMED = ("torch", "hfds", "hfids", "wds")


@overload
def open_source(
    config: DataConfig,
    *,
    purpose: Literal["train", "test"],
    dataset: Any = None,
    classes: Sequence[str] | None = None,
    labelled: bool | None = None,
) -> Source: ...


@overload
def open_source(
    config: DataConfig,
    *,
    purpose: Purpose = "pretrain",
    dataset: Any = None,
    classes: Sequence[str] | None = None,
    labelled: bool | None = None,
) -> Source | StreamSource: ...


def open_source(
    config: DataConfig,
    *,
    purpose: Purpose = "pretrain",
    dataset: Any = None,
    classes: Sequence[str] | None = None,
    labelled: bool | None = None,
) -> Source | StreamSource:
    """Open a data set.

    ``config.data`` may be:

    - a folder: class folders give labels; so does a labels.csv (several per image), if labels are needed. If a folder contains
      train/ and test/ or val/, one of them is read: pretraining and training use train/, testing uses test/, or else val/;
    - a .tar or .zip, or a compressed tar, with the same folders inside;
    - ``torch/cifar10`` and so on, with ``config.data_root``; ``hfds/NAME``, a data set of the Hugging Face Hub or a folder of one;
    - streams, for pretraining only: ``wds/FOLDER`` (shards; ``config.split`` may name them, as in ``train-{0000..0099}.tar``) and
      ``hfids/NAME``.

    Args:
        config: the config, of which these fields are used: ``data``, ``split``, ``in_chans`` and, if it has them, ``test_data``,
            ``test_split``, ``labels`` and ``multi_label``, ``labels_columns``, ``class_level``, ``holdout``; its ``out`` is never
            read as data.
        purpose: "pretrain", "train" or "test".
        dataset: a Python data set to use instead of ``config.data``, with a length and images by index, or a stream.
        classes: the classes of the training images, so that labels are numbered, and those in a CSV ordered, in the same way.
        labelled: True if labels are needed; by default for training and testing, not for pretraining.

    Returns:
        A `Source`, or a `StreamSource` for streams.

    Raises:
        UsageError: the data does not exist, is empty or unreadable, or its labels are missing or do not fit.
    """
    need = purpose != "pretrain" if labelled is None else labelled
    check_normalisation(config)
    share = getattr(config, "holdout", None)
    if share is not None and purpose != "pretrain":
        rest = without_holdout(config)
        whole = open_source(rest, purpose="train", dataset=dataset, classes=classes, labelled=True)
        assert isinstance(whole, Source)
        return held_out(whole, share, test=purpose == "test")
    if dataset is None and not _data(config, purpose):
        raise UsageError("gmml: no data was given. Give --data FOLDER, or dataset= in Python.")
    where = _data(config, purpose) or "the data set"
    try:
        source = _from_name(config, purpose, need, classes) if dataset is None else _from_python(dataset, config, need)
    except OSError as error:
        raise UsageError(f"gmml: {where} could not be read ({error}). Check its name and permissions.") from error
    if not isinstance(source, Source):
        if need:
            raise UsageError(
                "gmml: streams are supported for pretraining only. Give a folder, a tar, or hfds/... to train or test with labels."
            )
        return source
    if len(source) == 0:
        raise UsageError(f"gmml: {where} holds no images.")
    if len(source) == 1 and purpose != "test":
        raise UsageError(f"gmml: {where} holds only one image. Give at least two; a good data set has a few thousand.")
    if need:
        _check_labels(source, where, purpose, classes)
        if classes is not None and tuple(classes) != source.classes:
            source = Subset(source, range(len(source)), classes)
    check_readable(source)
    if dataset is None:
        source.where = source.where or where
    return source


def _data(config: DataConfig, purpose: Purpose) -> str:
    return (getattr(config, "test_data", None) if purpose == "test" else None) or config.data


def _check_labels(source: Source, where: str, purpose: Purpose, classes: Sequence[str] | None) -> None:
    if not source.labelled:
        raise UsageError(
            f"gmml: the images of {where} have no labels. Sort them into a folder for each class, or write a labels.csv: first "
            "column the file, then one 0/1 column per label."
        )
    if classes is None:
        if len(source.classes) == 1 and not source.multi_label:
            raise UsageError(
                f"gmml: {where} has only one class, {source.classes[0]!r}. Give a folder for each of at least two classes."
            )
        return
    strange = [name for name in source.classes if name not in classes]
    lacking = [name for name in classes if name not in source.classes] if source.multi_label else []
    if strange or lacking:
        what = f"the classes {strange[:5]}, which the training images do not have" if strange else f"no column for {lacking[:5]}"
        raise UsageError(f"gmml: {where} has {what}. Give {purpose} images with the same classes.")


def _from_name(config: DataConfig, purpose: Purpose, need: bool, classes: Sequence[str] | None) -> Source | StreamSource:
    data = _data(config, purpose)
    own = purpose != "test" or data != config.data
    split = getattr(config, "test_split", None) if purpose == "test" else config.split
    kind, _, rest = data.partition("/")
    if kind.lower() not in (*_NAMED, "tfds") or Path(data).exists():
        csv = getattr(config, "labels", None)
        wanted = Wanted(
            split=split,
            purpose=purpose,
            own=own,
            labelled=need,
            channels=config.in_chans,
            csv=None if csv is None else Path(csv).expanduser(),
            multi_label=getattr(config, "multi_label", None),
            columns=getattr(config, "labels_columns", None),
            level=getattr(config, "class_level", None),
            extensions=config.extensions,
            known=classes,
            output=getattr(config, "out", None),
        )
        return open_files(Path(data).expanduser(), wanted)
    from gmml_models.data import datasets_by_name

    opener = {
        "torch": datasets_by_name.open_torch,
        "hfds": datasets_by_name.open_hub,
        "hfids": datasets_by_name.open_hub_stream,
        "wds": datasets_by_name.open_shards,
    }.get(kind.lower())
    if opener is None:
        raise UsageError(f"gmml: {data}: tfds is not supported. Give hfds/..., wds/..., torch/..., a folder or a tar.")
    found = opener(rest, split, purpose, config)
    return _from_python(found, config, need) if opener in (datasets_by_name.open_torch, datasets_by_name.open_hub) else found


def _from_python(dataset: Any, config: DataConfig, need: bool) -> Source | StreamSource:
    if isinstance(dataset, Source):
        return dataset
    from gmml_models.data import datasets_by_name

    return (
        datasets_by_name.stream_of(dataset, config)
        if datasets_by_name.is_stream(dataset)
        else MapSource(dataset, channels=config.in_chans, labelled=need)
    )
