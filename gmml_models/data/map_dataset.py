"""Map-style data sets in Python: torchvision's, Hugging Face's, or any other with a length and images by index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor

from gmml_models.data.dataset import Label, Source
from gmml_models.data.decode import decode
from gmml_models.errors import UsageError

IMAGE_KEYS: Final = ("image", "img", "images", "picture", "pixel_values", "jpg", "jpeg", "png", "webp")
LABEL_KEYS: Final = ("label", "labels", "target", "class", "fine_label", "cls")


@final
class MapSource(Source):
    """A data set in Python.

    Args:
        dataset: ``dataset[i]`` is an image (see `decode`), a tuple of image and label, or a dict with both. A label is a number or
            a name; several labels are a vector of 0 and 1, or, if Hugging Face's features name the labels, the list of those that
            apply.
        channels: the number of channels of the images.
        labelled: True if labels are needed. If the data set does not list them (``targets``, ``labels``, a column), it is read
            once.

    Raises:
        UsageError: the data set has no length; or labels are needed, and there are none or they do not fit.
    """

    def __init__(self, dataset: Any, *, channels: int, labelled: bool) -> None:
        super().__init__(channels=channels)
        if not hasattr(dataset, "__len__"):
            raise UsageError(f"gmml: the data set, a {type(dataset).__name__}, has no length. Define __len__ or __iter__ in it.")
        self.dataset = dataset
        self.image_key, self.label_key, named, numbers = image_and_label_keys(dataset)
        self._labels: list[Label] = []
        if labelled and len(dataset):
            raw = self._raw_labels()
            names = named or tuple(getattr(dataset, "classes", ()))
            self._labels, self.classes, self.multi_label = number_labels(raw, names, numbers=numbers)

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def parallel(self) -> bool:
        """Always False, because a data set may not support reading by several threads."""
        return False

    def name(self, index: int) -> str:
        """Its number."""
        return f"image {index}"

    def labels(self) -> Sequence[Label]:
        """The labels found when the data set was opened."""
        return self._labels or [None] * len(self)

    def item(self, index: int) -> tuple[Tensor, Label]:
        """Ask the data set for one image."""
        image, _ = split_item(self.dataset[index], self.image_key, self.label_key)
        return decode(image, self.channels), self._labels[index] if self._labels else None

    def _raw_labels(self) -> list[Any]:
        count = len(self.dataset)
        if self.label_key is not None and hasattr(self.dataset, "features"):
            return list(self.dataset[self.label_key])
        for name in ("targets", "labels", "_labels"):
            listed = getattr(self.dataset, name, None)
            if isinstance(listed, Sequence | np.ndarray | Tensor) and len(listed) == count:
                change = getattr(self.dataset, "target_transform", None)
                return [one if change is None else change(one) for one in listed]
        return [split_item(self.dataset[index], self.image_key, self.label_key)[1] for index in range(count)]


def split_item(found: Any, image_key: str | None = None, label_key: str | None = None) -> tuple[Any, Any]:
    """Split an item of a data set into image and label (or None).

    Args:
        found: an image, a tuple that begins with one, or a dict.
        image_key: the key of the image in the dict; by default one of `IMAGE_KEYS`.
        label_key: the key of the label; by default one of `LABEL_KEYS`.

    Raises:
        ValueError: the item is a dict in which nothing looks like an image.
    """
    if isinstance(found, Mapping) and not {"bytes", "path"} <= set(found):
        key = image_key or next((key for key in IMAGE_KEYS if key in found), None)
        if key is None:
            raise ValueError(f"its keys are {sorted(map(str, found))}, and none of them is one of {', '.join(IMAGE_KEYS)}")
        label = label_key or next((key for key in LABEL_KEYS if key in found), None)
        return found[key], found.get(label) if label is not None else None
    if isinstance(found, tuple | list):
        return found[0], found[1] if len(found) > 1 else None
    return found, None


def number_labels(raw: Sequence[Any], names: Sequence[str], *, numbers: bool = False) -> tuple[list[Label], tuple[str, ...], bool]:
    """Return labels as numbers, or as vectors of 0 and 1; the names of the classes; and whether an image can have several labels.

    Args:
        raw: numbers, names, or for each image a vector of 0 and 1.
        names: the names of the classes, () if they have none.
        numbers: True if each image has a list of the labels that apply, as numbers below ``len(names)``.

    Raises:
        UsageError: a label is missing or does not fit the others.
    """
    plain: list[Any] = [one.tolist() if isinstance(one, Tensor | np.ndarray | np.generic) else one for one in raw]
    if plain[0] is None:
        raise UsageError("gmml: labels are needed, but the data set has none. Give items of (image, label), or dicts with a label.")
    if isinstance(plain[0], list | tuple):
        return _several(plain, names, numbers)
    if isinstance(plain[0], str) and all(isinstance(one, str) for one in plain):
        names = tuple(sorted(set(plain)))
        place = {name: number for number, name in enumerate(names)}
        plain = [place[one] for one in plain]
    for number, one in enumerate(plain):
        if not isinstance(one, int | float) or one != int(one) or one < 0:
            raise UsageError(
                f"gmml: image {number} of the data set has the label {one!r}. Give every image a class, counted from 0."
            )
    count = int(max(plain)) + 1
    known = tuple(map(str, names)) if len(names) >= count else tuple(map(str, range(count)))
    return [int(one) for one in plain], known, False


def _several(plain: Sequence[Any], names: Sequence[str], numbers: bool) -> tuple[list[Label], tuple[str, ...], bool]:
    count = len(names) or len(plain[0])
    vectors: list[Label] = []
    for place, one in enumerate(plain):
        held = one if isinstance(one, list | tuple) else [None]
        if numbers and all(isinstance(label, int) and 0 <= label < count for label in held):
            vectors.append(torch.zeros(count).index_fill_(0, torch.tensor(held, dtype=torch.long), 1.0))
        elif not numbers and len(held) == count and set(held) <= {0, 1}:
            vectors.append(torch.tensor(held, dtype=torch.float32))
        else:
            raise UsageError(
                f"gmml: image {place} of the data set has the labels {one!r}. Give every image {count} numbers, 0 or 1."
            )
    return vectors, tuple(map(str, names)) if names else tuple(map(str, range(count))), True


def image_and_label_keys(dataset: Any) -> tuple[str | None, str | None, tuple[str, ...], bool]:
    """Read the features that a Hugging Face data set declares.

    Returns:
        The keys of image and label, the names of the classes, and whether the label is a list of class numbers. For other data
        sets these are empty.
    """
    features = getattr(dataset, "features", None)
    if not isinstance(features, Mapping):
        return None, None, (), False
    image = next((key for key, kind in features.items() if type(kind).__name__ == "Image"), None)
    inner = {key: getattr(kind, "feature", kind) for key, kind in features.items()}
    classed = [key for key, kind in inner.items() if type(kind).__name__ == "ClassLabel"]
    label = next((key for key in (*LABEL_KEYS, *classed) if key in classed), None) or next(
        (key for key in LABEL_KEYS if key in features), None
    )
    if label is None:
        return image, None, (), False
    return image, label, tuple(getattr(inner[label], "names", None) or ()), label in classed and inner[label] is not features[label]
