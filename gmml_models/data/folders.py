"""Images in a folder, a tar, or the files that a CSV names: found by timm's readers, decoded here so that broken ones are named."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, final

from torch import Tensor

from gmml_models.data.dataset import Label, Source
from gmml_models.data.decode import decode
from gmml_models.data.labels_csv import read_labels
from gmml_models.errors import UsageError

Purpose = Literal["pretrain", "train", "test"]
TRAIN_SPLITS = ("train", "training")
TEST_SPLITS = ("test", "val", "valid", "validation", "eval", "evaluation")
_SAME = (TRAIN_SPLITS, ("val", "valid", "validation"), ("eval", "evaluation"))
_ENDINGS = (".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".avif", ".jp2")  # beside timm's .png, .jpg, .jpeg


@final
@dataclass(frozen=True)
class LooseFiles:
    """Files on a disk."""

    paths: Sequence[Path | str]
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """All of a file."""
        return Path(self.paths[index]).read_bytes()


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


@final
class FileSource(Source):
    """Image files.

    Args:
        files: their bytes and names.
        targets: their labels, or None.
        classes: names of the labels.
        channels: 1 or 3.
        multi_label: labels are (c,) tensors.
    """

    def __init__(
        self,
        files: LooseFiles | FilesInTar,
        targets: Sequence[int] | Tensor | None,
        *,
        classes: Sequence[str] = (),
        channels: int = 3,
        multi_label: bool = False,
    ) -> None:
        super().__init__(channels=channels, classes=classes, multi_label=multi_label)
        self.files = files
        self.targets = targets

    def __len__(self) -> int:
        return len(self.files.names)

    def name(self, index: int) -> str:
        """Path, relative to the folder or the CSV, or inside the tar."""
        return self.files.names[index]

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
        return _open_tar(path, split, purpose, own, labelled, channels)
    tops = {one.name for one in path.iterdir() if one.is_dir() and not one.name.startswith(".")}
    chosen = choose_split(str(path), tops, split, purpose, own, lambda name: any(one.is_dir() for one in (path / name).iterdir()))
    folder = path / chosen if chosen else path
    if wants_csv or (multi_label is None and labelled):
        places = [folder, path, *([path.parent] if path.name in TRAIN_SPLITS + TEST_SPLITS else [])]
        tables = [csv] if csv is not None else [place / "labels.csv" for place in places]
        there = next((table for table in tables if table.is_file()), None)
        if there is not None:
            rows = read_labels(there, folder)
            files = LooseFiles(rows.files, rows.names)
            return FileSource(files, rows.labels, classes=rows.classes, channels=channels, multi_label=True)
        if wants_csv:
            raise UsageError(
                f"gmml: there is no {tables[0]}. Give --labels FILE.csv: first column the file, then one 0/1 column a label."
            )
    with _more_endings() as endings:
        from timm.data.dataset_factory import create_dataset

        try:
            reader = create_dataset("", str(folder), search_split=False).reader
        except RuntimeError as error:
            if any(folder.glob("*.tar")):
                raise UsageError(f"gmml: {folder} holds tars. Give one of them, or wds/{folder} if they are shards.") from error
            raise UsageError(f"gmml: {folder} holds no images. Known endings: {', '.join(endings)}.") from error
    paths = [path for path, _ in reader.samples]
    targets, classes = _classes(str(folder), [target for _, target in reader.samples], list(reader.class_to_idx), {""}, labelled)
    return FileSource(LooseFiles(paths, reader.filenames()), targets, classes=classes, channels=channels)


def _open_tar(path: Path, split: str | None, purpose: Purpose, own: bool, labelled: bool, channels: int) -> FileSource:
    if path.suffix.lower() != ".tar":
        raise UsageError(f"gmml: {path} is a file, but not an uncompressed .tar. Give a folder or a .tar of images.")
    with _more_endings() as endings:
        from timm.data.dataset_factory import create_dataset

        try:
            reader = create_dataset("", str(path)).reader
        except (ValueError, AssertionError, tarfile.TarError, OSError) as error:
            raise UsageError(
                f"gmml: {path} holds no images, or is damaged ({error}). Known endings: {', '.join(endings)}."
            ) from error
    folders = [PurePosixPath(info.path).parent.parts for info, *_ in reader.samples]
    shared = 0  # folders that all of them lie in
    while len({parts[: shared + 1] for parts in folders}) == 1 and len(folders[0]) > shared:
        shared += 1
    below = [parts[shared:] for parts in folders]
    tops = {parts[0] for parts in below if parts}
    chosen = choose_split(str(path), tops, split, purpose, own, lambda name: any(p[0] == name and len(p) > 1 for p in below if p))
    numbers = [number for number, parts in enumerate(below) if chosen is None or parts[:1] == (chosen,)]
    outside = {"", *([chosen] if chosen else [])}
    targets = [int(reader.targets[number]) for number in numbers]
    kept, classes = _classes(str(path), targets, list(reader.class_name_to_idx), outside, labelled)
    chosen_files = [reader.samples[number] for number in numbers]
    # a tar inside the tar has its own beginning
    places = [(info.offset_data + (outer.offset_data if outer is not None else 0), info.size) for info, _, outer in chosen_files]
    names = [info.name if outer is None else f"{outer.name}/{info.name}" for info, _, outer in chosen_files]
    files = FilesInTar(path, places, names)
    return FileSource(files, kept, classes=classes, channels=channels)


def choose_split(
    where: str, tops: Collection[str], split: str | None, purpose: Purpose, own: bool, nested: Callable[[str], bool]
) -> str | None:
    """Which sub-folder the images are read from; None: from all of it.

    Without a word from the user, training takes train/ if test/ or val/ is beside it, if it is the only sub-folder, or if it has
    sub-folders itself (so that a class may be called train); testing takes test/, else val/.

    Args:
        where: for messages.
        tops: names of the sub-folders.
        split: the user's word.
        purpose: what the images are for.
        own: the test images have a path of their own, which may be their folder itself.
        nested: says whether a sub-folder has sub-folders.

    Raises:
        UsageError: the split that is asked for, or a test split, is not there.
    """
    listed = ", ".join(sorted(tops)[:10]) or "none"
    if split is not None:
        for name in (split, *next((names for names in _SAME if split in names), ())):
            if name in tops:
                return str(name)
        raise UsageError(f"gmml: {where} has no sub-folder {split!r} (it has: {listed}). Give one of them, or none.")
    train = next((name for name in TRAIN_SPLITS if name in tops), None)
    test = next((name for name in TEST_SPLITS if name in tops), None)
    if purpose == "test":
        if test is None and not own:
            raise UsageError(f"gmml: {where} has no test or val sub-folder (it has: {listed}). Give --test-data or --test-split.")
        return test
    return train if train is not None and (test is not None or len(tops) == 1 or nested(train)) else None


def _classes(
    where: str, targets: Sequence[int], names: Sequence[str], outside: Collection[str], labelled: bool
) -> tuple[list[int] | None, tuple[str, ...]]:
    used = sorted(set(targets))
    loose = [target for target in used if names[target] in outside]
    if loose and len(loose) < len(used) and labelled:
        raise UsageError(
            f"gmml: in {where} {sum(target in loose for target in targets)} images lie beside the class folders. "
            "Move them into a folder of their class."
        )
    if loose:
        return None, ()
    renumbered = {old: new for new, old in enumerate(used)}
    return [renumbered[target] for target in targets], tuple(names[target] for target in used)


@contextmanager
def _more_endings() -> Iterator[tuple[str, ...]]:
    """Let timm's readers see all that Pillow decodes for us; the tar reader has no argument for it."""
    from timm.data.readers import img_extensions

    known: Any = img_extensions  # timm leaves it untyped
    before = known.get_img_extensions()
    known.set_img_extensions((*before, *(ending for ending in _ENDINGS if ending not in before)))
    try:
        yield known.get_img_extensions()
    finally:
        known.set_img_extensions(before)
