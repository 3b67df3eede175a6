"""Images in an uncompressed tar, read where they lie."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, final

from gmml_models.data.files import FileSource
from gmml_models.data.image_files import endings_of_pillow, known_endings
from gmml_models.data.scan import LeftOut, is_hidden
from gmml_models.data.splits import Purpose, choose_split, class_folders
from gmml_models.errors import UsageError

ARCHIVES = (".tar",)


def is_archive(path: Path) -> bool:
    """A file whose ending says that it holds others."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


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


def open_tar(
    path: Path,
    split: str | None,
    purpose: Purpose,
    own: bool,
    labelled: bool,
    channels: int,
    level: int | None,
    known: Sequence[str] | None,
    *,
    whole: bool = False,
) -> FileSource:
    """Open a tar; arguments and errors as `gmml_models.data.folders.open_files`; ``whole``: no sub-folder of it is a split."""
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
    tops = {parts[0] for parts in below if parts and not whole}
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
