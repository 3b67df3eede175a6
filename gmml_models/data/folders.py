"""Images in a folder, a tar, or the files that a CSV names: what is left out, and which folder is the class, is told."""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, final

from torch import Tensor

from gmml_models.data.dataset import Identity, Label, Source
from gmml_models.data.decode import decode
from gmml_models.data.image_files import endings_of_pillow, known_endings
from gmml_models.data.labels_csv import read_labels
from gmml_models.data.scan import LeftOut, is_hidden, is_run, scan
from gmml_models.data.splits import TEST_SPLITS, TRAIN_SPLITS, Purpose, choose_split, class_folders
from gmml_models.errors import UsageError


@final
@dataclass(frozen=True)
class LooseFiles:
    """Files on a disk."""

    paths: Sequence[Path | str]
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """All of a file."""
        return Path(self.paths[index]).read_bytes()

    def size(self, index: int) -> int:
        """Bytes of a file; -1 where it is gone."""
        try:
            return Path(self.paths[index]).stat().st_size
        except OSError:
            return -1


@final
@dataclass(frozen=True)
class FilesInTar:
    """Files in an uncompressed tar, by their place in it: nothing is kept open that threads or forks would share."""

    path: Path
    places: Sequence[tuple[int, int]]  # first byte, and how many
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """All of a file."""
        first, count = self.places[index]
        with self.path.open("rb") as file:
            file.seek(first)
            return file.read(count)

    def size(self, index: int) -> int:
        """Bytes of a file."""
        return self.places[index][1]


@final
class FileSource(Source):
    """Image files.

    Args:
        files: their bytes and names.
        targets: their labels, or None.
        classes: names of the labels.
        channels: 1 or 3.
        multi_label: labels are (c,) tensors.
        where: they lie.
        left: what is no part of them.
        notes: guesses about them.
    """

    def __init__(
        self,
        files: LooseFiles | FilesInTar,
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
        """Path, relative to the folder or the CSV, or inside the tar."""
        return self.files.names[index]

    def identity(self) -> Identity:
        """From the names and sizes of the files, and the labels of a CSV."""
        total, digest = 0, hashlib.sha256()
        for index, name in enumerate(self.files.names):
            size = self.files.size(index)
            total += size
            digest.update(f"{name}\0{size}\n".encode(errors="surrogateescape"))
        if isinstance(self.targets, Tensor):
            digest.update(self.targets.numpy().tobytes())
        return Identity(images=len(self), bytes=total, sha256=digest.hexdigest())

    def labels(self) -> Sequence[Label]:
        """From the names of the folders, or the CSV."""
        return [None] * len(self) if self.targets is None else list(self.targets)

    def item(self, index: int) -> tuple[Tensor, Label]:
        """Read and decode one file."""
        label = None if self.targets is None else self.targets[index]
        return decode(self.files.read(index), self.channels), label


def open_files(
    path: Path,
    *,
    split: str | None,
    purpose: Purpose,
    own: bool,
    labelled: bool,
    channels: int,
    csv: Path | None,
    multi_label: bool | None,
    columns: Sequence[str] | None = None,
    level: int | None = None,
    known: Sequence[str] | None = None,
    output: Path | None = None,
) -> FileSource:
    """Open a folder or a tar.

    Args:
        path: of it.
        split: sub-folder, inside a tar too; None: see `choose_split`.
        purpose: what the images are for.
        own: the test images have a path of their own, so that ``path`` itself may be their folder.
        labelled: labels are needed.
        channels: 1 or 3.
        csv: labels; by default labels.csv beside the images or their split.
        multi_label: True: a CSV must be there; False: none is read; None: one is read if it is there and labels are needed.
        columns: of the CSV that are labels; None: see `read_labels`.
        level: of the folders that are the classes; see `class_folders`.
        known: the classes of the training images.
        output: the run's own folder, which is no data.

    Raises:
        UsageError: nothing there, no images, or labels that do not fit.
    """
    if channels not in (1, 3):
        raise UsageError(
            f"gmml: image files have 1 or 3 channels, and in_chans is {channels}. Give a data set in Python for others."
        )
    if not path.exists():
        raise UsageError(
            f"gmml: there is no {path}. Give a folder or tar of images, or a data set as timm names it (wds/..., hfds/...)."
        )
    wants_csv = bool(multi_label) or csv is not None
    if path.is_file():
        if wants_csv:
            raise UsageError(f"gmml: labels in a CSV are read for folders, and {path} is a file. Unpack it first.")
        return _open_tar(path, split, purpose, own, labelled, channels, level, known)
    if not path.is_dir():
        raise UsageError(f"gmml: {path} is neither a folder nor a file. Give a folder or tar of images.")
    tops = {one.name for one in path.iterdir() if _may_hold_images(one, output)}
    chosen = choose_split(str(path), tops, split, purpose, own, lambda name: any(map(_may_hold_images, (path / name).iterdir())))
    folder = path / chosen if chosen else path
    if wants_csv or (multi_label is None and labelled):
        places = [folder, path, *([path.parent] if path.name in TRAIN_SPLITS + TEST_SPLITS else [])]
        tables = [csv] if csv is not None else [place / "labels.csv" for place in places]
        there = next((table for table in tables if table.is_file()), None)
        if there is not None:
            rows = read_labels(there, folder, columns)
            paths, left = scan(folder, own=output)
            named = {str(file) for file in rows.files}
            unnamed = [file for file in paths if os.path.abspath(file) not in named]  # noqa: PTH100  # links stay, as in the CSV
            left += [LeftOut(file.relative_to(folder).as_posix(), f"in no line of {there.name}", lost=False) for file in unnamed]
            return FileSource(
                LooseFiles(rows.files, rows.names),
                rows.labels,
                classes=rows.classes,
                channels=channels,
                multi_label=True,
                where=str(folder),
                left=left,
                notes=rows.notes,
            )
        if wants_csv:
            raise UsageError(
                f"gmml: there is no {tables[0]}. Give --labels FILE.csv: first column the file, then one 0/1 column a label."
            )
    paths, left = scan(folder, own=output)
    if not paths:
        if any(folder.glob("*.tar")):
            raise UsageError(f"gmml: {folder} holds tars. Give one of them, or wds/{folder} if they are shards.")
        aside = f" Left out: {len(left)}, the first {left[0].name} ({left[0].reason})." if left else ""
        raise UsageError(f"gmml: {folder} holds no images.{aside} Known endings: {known_endings()}.")
    names = [file.relative_to(folder).as_posix() for file in paths]
    parts = [PurePosixPath(name).parent.parts for name in names]
    targets, classes, notes = class_folders(str(folder), parts, level=level, known=known, labelled=labelled)
    return FileSource(
        LooseFiles(paths, names), targets, classes=classes, channels=channels, where=str(folder), left=left, notes=notes
    )


def _may_hold_images(path: Path, output: Path | None = None) -> bool:
    """A sub-folder that may be a split or a class: not a run's, nor one that holds runs alone."""
    if is_hidden(path.name) or not path.is_dir() or (output is not None and path.resolve() == output.resolve()):
        return False
    if is_run(path):
        return False
    try:
        inside = path.iterdir()
        first = next(inside, None)
        # the first that is no run ends the search: a class may have very many images
        return first is None or not all(one.is_dir() and is_run(one) for one in chain((first,), inside))
    except OSError:
        return True


def _open_tar(
    path: Path,
    split: str | None,
    purpose: Purpose,
    own: bool,
    labelled: bool,
    channels: int,
    level: int | None,
    known: Sequence[str] | None,
) -> FileSource:
    if path.suffix.lower() != ".tar":
        raise UsageError(f"gmml: {path} is a file, but not an uncompressed .tar. Give a folder or a .tar of images.")
    with _more_endings():
        from timm.data.dataset_factory import create_dataset

        try:
            reader = create_dataset("", str(path)).reader
        except (ValueError, AssertionError, tarfile.TarError, OSError) as error:
            raise UsageError(f"gmml: {path} holds no images, or is damaged ({error}). Known endings: {known_endings()}.") from error
    visible, left = [], list[LeftOut]()
    for sample in reader.samples:
        inside = PurePosixPath(sample[0].path)
        if any(map(is_hidden, inside.parts)):
            left.append(LeftOut(str(inside), "hidden", lost=False))
        else:
            visible.append(sample)
    if not visible:
        raise UsageError(f"gmml: {path} holds hidden images alone, the first {left[0].name}. Give a tar of images.")
    # a tar inside the tar is a folder, for the class
    folders = [
        ((PurePosixPath(outer.name).stem,) if outer is not None else ()) + PurePosixPath(info.path).parent.parts
        for info, _, outer in visible
    ]
    shared = 0  # folders that all of them lie in
    while len({parts[: shared + 1] for parts in folders}) == 1 and len(folders[0]) > shared:
        shared += 1
    below = [parts[shared:] for parts in folders]
    tops = {parts[0] for parts in below if parts}
    chosen = choose_split(str(path), tops, split, purpose, own, lambda name: any(p[0] == name and len(p) > 1 for p in below if p))
    numbers = [number for number, parts in enumerate(below) if chosen is None or parts[:1] == (chosen,)]
    inner = [below[number][chosen is not None :] for number in numbers]
    targets, classes, notes = class_folders(str(path), inner, level=level, known=known, labelled=labelled)
    chosen_files = [visible[number] for number in numbers]
    # a tar inside the tar has its own beginning
    places = [(info.offset_data + (outer.offset_data if outer is not None else 0), info.size) for info, _, outer in chosen_files]
    names = [info.name if outer is None else f"{outer.name}/{info.name}" for info, _, outer in chosen_files]
    files = FilesInTar(path, places, names)
    return FileSource(files, targets, classes=classes, channels=channels, where=str(path), left=left, notes=notes)


@contextmanager
def _more_endings() -> Iterator[None]:
    """Let timm's reader of tars see all that Pillow decodes for us; it has no argument for it."""
    from timm.data.readers import img_extensions

    known: Any = img_extensions  # timm leaves it untyped
    before = known.get_img_extensions()
    known.set_img_extensions(tuple({*before, *endings_of_pillow()}))
    try:
        yield
    finally:
        known.set_img_extensions(before)
