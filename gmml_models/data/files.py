"""Image files by index, wherever they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, final

from torch import Tensor

from gmml_models.data.dataset import Identity, Label, Source
from gmml_models.data.decode import decode
from gmml_models.data.scan import LeftOut


class Files(Protocol):
    """Bytes and names of files, wherever they are stored."""

    @property
    def names(self) -> Sequence[str]:
        """The names under which a user can find the files."""

    def read(self, index: int) -> bytes:
        """The content of a file."""

    def size(self, index: int) -> int:
        """Size of a file in bytes; -1 if it no longer exists."""


@final
@dataclass(frozen=True)
class LooseFiles:
    """Files on a disk."""

    paths: Sequence[Path | str]
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """The content of a file."""
        return Path(self.paths[index]).read_bytes()

    def size(self, index: int) -> int:
        """Size of a file in bytes; -1 if it no longer exists."""
        try:
            return Path(self.paths[index]).stat().st_size
        except OSError:
            return -1


@final
class FileSource(Source):
    """Image files.

    Args:
        files: the bytes and names of the files.
        targets: the labels of the files, as (N, c) of 0 and 1, or as (N,) int64 or a sequence of class numbers; None without
            labels.
        classes: the names of the classes or labels.
        channels: 1 or 3.
        multi_label: True if labels are (c,) tensors.
        where: they lie.
        left: files and folders that are not part of the data.
        notes: guesses that were made about the data.
    """

    def __init__(
        self,
        files: Files,
        targets: Sequence[int] | Tensor | None,
        *,
        classes: Sequence[str] = (),
        channels: int = 3,
        multi_label: bool = False,
        where: str = "",
        left: Sequence[LeftOut] = (),
        notes: Sequence[str] = (),
    ) -> None:
        super().__init__(channels=channels, classes=classes, multi_label=multi_label)
        self.files = files
        self.targets = targets
        self.where, self.left, self.notes = where, tuple(left), tuple(notes)

    def __len__(self) -> int:
        return len(self.files.names)

    def name(self, index: int) -> str:
        """The path, relative to the folder or the CSV, or inside the tar."""
        return self.files.names[index]

    def identity(self) -> Identity:
        """The identity, from the names and sizes of the files and the labels of a CSV."""
        total, digest = 0, hashlib.sha256()
        for index, name in enumerate(self.files.names):
            size = self.files.size(index)
            total += size
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        if isinstance(self.targets, Tensor):
            digest.update(self.targets.numpy().tobytes())
        return Identity(images=len(self), bytes=total, sha256=digest.hexdigest())

    def labels(self) -> Sequence[Label]:
        """The labels, from the names of the folders or from the CSV."""
        if isinstance(self.targets, Tensor) and self.targets.ndim == 1:
            return list(self.targets.tolist())
        return [None] * len(self) if self.targets is None else list(self.targets)

    def item(self, index: int) -> tuple[Tensor, Label]:
        """Read and decode one file."""
        label = None if self.targets is None else self.targets[index]
        if isinstance(label, Tensor) and label.ndim == 0:
            label = int(label)
        return decode(self.files.read(index), self.channels), label
