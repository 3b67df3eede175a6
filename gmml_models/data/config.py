"""Which images a run is about, as a frozen dataclass; and a config as its record, in types that JSON has.

A field whose metadata says ``free`` changes how fast or how visibly a run goes, not its result: such fields may differ when a run
is resumed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FREE: dict[str, Any] = {"free": True}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which images, and how they are read."""

    data: str = ""
    """A folder or tar of images (class folders give labels, a labels.csv several), or a name of timm's: wds/..., hfds/..."""
    data_root: str | None = None
    """Folder of the files of a torch/... data set, or cache of a hfds/... one."""
    split: str | None = None
    """Sub-folder or split; by default what `data` itself is, or for training its train split."""
    stream_images: int | None = None
    """Images in an epoch of a stream (wds/..., hfids/...) that does not say how many it has."""
    in_chans: int = 3
    """Channels: 1 grey, 3 colour; others from a data set in Python."""
    mean: tuple[float, ...] | None = None
    """Per channel, for pixels in [0, 1]; ImageNet's by default, or those of the weights (see gmml stats)."""
    std: tuple[float, ...] | None = None
    """Per channel, likewise."""
    resident: bool | None = field(default=None, metadata=FREE)
    """Keep all images as uint8 on the device and augment there; by default on a GPU, where the data set is small enough."""
    resident_size: int | None = None
    """Side at which images are kept there; by default 1.15 times the input."""
    workers: int = field(default=2, metadata=FREE)
    """Processes that decode, where the data is not resident."""


def record(config: DataConfig) -> dict[str, Any]:
    """A config in types that JSON has."""
    return json.loads(json.dumps(asdict(config), default=str))  # type: ignore[no-any-return]  # a dict in, a dict out


def differences(config: DataConfig, recorded: dict[str, Any]) -> list[str]:
    """What differs between a config and the record of a run, as ``name: then -> now``, but for what is free to differ."""
    now = record(config)
    fixed = [one.name for one in fields(config) if not one.metadata.get("free") and one.name != "out"]
    return [f"{name}: {recorded.get(name)!r} -> {now[name]!r}" for name in fixed if recorded.get(name, now[name]) != now[name]]
