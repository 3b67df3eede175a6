"""The images that a run uses, as a frozen dataclass, and the conversion of a config to JSON types.

A field whose metadata says ``free`` affects the speed of a run or its output on the screen, but not its result: such fields may
differ when a run is resumed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from gmml_models.errors import UsageError

_PLACES = ("data", "data_root", "test_data", "labels", "weights")
FREE: dict[str, Any] = {"free": True}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images of a run, and how they are read."""

    data: str = ""
    """Folder, tar or zip of images (class folders or a labels.csv give labels), or a data set by name: torch/..., hfds/..."""
    data_root: str | None = None
    """Folder with the files of a torch/... data set, or cache folder of a hfds/... one."""
    split: str | None = None
    """Subfolder or split to read; by default the train split if there is one, else all images."""
    extensions: tuple[str, ...] | None = None
    """File extensions of images, such as .jpg .png; by default all that Pillow reads."""
    stream_images: int | None = None
    """Images per epoch of a stream (wds/..., hfids/...) that does not state its length."""
    in_chans: int = 3
    """Number of channels: 1 for grey, 3 for colour; other numbers need a data set in Python."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel for pixels in [0, 1], as gmml stats prints it; by default ImageNet's, or that of the weights."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel; by default ImageNet's, or that of the weights."""
    resident: bool | None = field(default=None, metadata=FREE)
    """Keep all images on the device as uint8 and augment them there; by default on a GPU if they take little of its memory."""
    resident_size: int | None = None
    """Side in pixels of the images kept on the device; by default 1.15 times the input."""
    workers: int | None = field(default=None, metadata=FREE)
    """Number of processes that decode images, or threads with --resident; by default one per core, at most 2, or 8 with a GPU."""

    def __post_init__(self) -> None:
        """Replace a ``~`` that the shell has not expanded by the home folder."""
        for name in _PLACES:
            value = getattr(self, name, None)
            if isinstance(value, str) and value.startswith("~"):
                object.__setattr__(self, name, os.path.expanduser(value))  # noqa: PTH111  # text, which may name no path at all


def check_normalisation(config: DataConfig) -> None:
    """Refuse a mean or standard deviation that cannot belong to pixels in [0, 1].

    Raises:
        UsageError: the value is out of range; the message names the field, and converts statistics of bytes to [0, 1].
    """
    for name, values in (("mean", config.mean), ("std", config.std)):
        if values is None or all(0 <= one <= 1 and (one > 0 or name == "mean") for one in values):
            continue
        words = " ".join(f"{one:g}" for one in values)
        bytes_ = all(0 <= one <= 255 for one in values) and max(values) > 1
        shares = " ".join(f"{one / 255:.4g}" for one in values)
        advice = f"If these are statistics of bytes, give --{name} {shares}" if bytes_ else "See gmml stats"
        allowed = "from 0 to 1" if name == "mean" else "above 0, up to 1"
        raise UsageError(f"gmml: --{name} {words}: pixels are in [0, 1], so each number is {allowed}. {advice}.")


def record(config: DataConfig) -> dict[str, Any]:
    """Convert a config to JSON types."""
    return json.loads(json.dumps(asdict(config), default=str))  # type: ignore[no-any-return]  # a dict in, a dict out


def place(value: Any) -> Any:
    """Return the canonical spelling of an existing path, and anything else unchanged."""
    try:  # as text, which may name no path at all
        return os.path.realpath(value) if isinstance(value, str) and value and os.path.exists(value) else value  # noqa: PTH110
    except (OSError, ValueError):
        return value


def differences(config: DataConfig, recorded: dict[str, Any], *, free: Collection[str] = ()) -> list[str]:
    """List the differences between a config and the record of a run, as ``name: then -> now``.

    Args:
        config: the current config.
        recorded: the config in the record of the run.
        free: names that may differ, in addition to ``out`` and the fields marked as free. Paths may be spelt differently.
    """
    now = record(config)
    fixed = [one.name for one in fields(config) if not one.metadata.get("free") and one.name not in ("out", *free)]
    other = [name for name in fixed if recorded.get(name, now[name]) != now[name]]
    return [
        f"{name}: {recorded.get(name)!r} -> {now[name]!r}"
        for name in other
        if name not in _PLACES or place(recorded.get(name)) != place(now[name])
    ]
