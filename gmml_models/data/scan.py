"""Determines which files of a folder are images, which are skipped, and why."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gmml_models.data.image_files import endings_of_pillow
from gmml_models.errors import UsageError, shown

# written by systems beside a person's files: thumbnails, copies of attributes, what was deleted
_HIDDEN = ("__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found")
_HEIF = "HEIC and HEIF need the package pillow-heif (pip install pillow-heif)"
# endings that photographs have, and that cannot be read here
_PHOTOGRAPHS = {
    **dict.fromkeys((".heic", ".heif", ".heics", ".heifs", ".hif"), _HEIF),
    **dict.fromkeys((".avif", ".avifs"), "AVIF needs Pillow 11.3 or pillow-heif (pip install -U pillow)"),
    **dict.fromkeys((".webp", ".jp2", ".j2k", ".tif", ".tiff"), "this Pillow was built without its decoder"),
    **dict.fromkeys(
        (".jxl", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".psd", ".svg", ".eps", ".exr", ".hdr", ".dcm"),
        "this format is not supported: convert it to JPEG or PNG",
    ),
}
_RUN = ("checkpoints", "epochs.csv", "weights", "steps.csv")  # beside config.json, in the folder of a run


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not part of a data set.

    Attributes:
        name: the path relative to the folder.
        reason: the reason, in a few words.
        lost: True if it may be an image that the user wanted, which affects the exit code.
    """

    name: str
    reason: str
    lost: bool = True


def scan(root: Path, *, own: Path | None = None, extensions: Sequence[str] | None = None) -> tuple[list[Path], list[LeftOut]]:
    """List the image files in a folder, at any depth; links are followed.

    Hidden files and folders, folders of runs, links to a folder that contains the link, and anything that is not a regular file,
    such as a pipe, are never part of the data.

    Args:
        root: the folder.
        own: the output folder of the run, which is ignored.
        extensions: the extensions of image files; see `endings_of`.

    Returns:
        The images in natural order (2 before 10), and the files that were skipped.

    Raises:
        OSError: ``root`` cannot be read.
    """
    endings, images, left = endings_of(extensions), list[Path](), list[LeftOut]()
    above, output = root.resolve(), None if own is None else own.resolve()

    def leave(path: Path, reason: str, *, lost: bool = True) -> None:
        left.append(LeftOut(path.relative_to(root).as_posix(), reason, lost))

    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(root, frozenset())]
    while waiting:
        folder, parents = waiting.pop()
        try:
            here = folder.stat()
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            if folder == root:
                raise
            leave(folder, error.strerror or str(error))
            continue
        if folder != root and any(entry.name == "config.json" for entry in entries) and is_run(folder):
            leave(folder, "the folder of a run", lost=False)
            continue
        chain = parents | {(here.st_dev, here.st_ino)}
        for entry in entries:
            path, ending = Path(entry.path), os.path.splitext(entry.name)[1].lower()  # noqa: PTH122  # .jpg alone has no suffix
            if is_hidden(entry.name):
                if entry.is_dir() or ending in endings:
                    leave(path, "hidden", lost=False)
                continue
            try:
                if entry.is_dir():
                    inside = entry.stat()
                    if (inside.st_dev, inside.st_ino) in chain or (entry.is_symlink() and above.is_relative_to(path.resolve())):
                        leave(path, "a link to a folder that contains it", lost=False)
                    elif output is not None and path.resolve() == output:
                        leave(path, "the run's own folder", lost=False)
                    else:
                        waiting.append((path, chain))
                elif ending not in endings:
                    if entry.name != "labels.csv":
                        left.append(no_image(path.relative_to(root).as_posix(), chosen=extensions is not None))
                elif entry.is_file():
                    images.append(path)
                elif entry.is_symlink() and not path.exists():
                    leave(path, "a broken link")
                else:
                    leave(path, "not a regular file", lost=False)
            except OSError as error:
                leave(path, error.strerror or str(error))
    return sorted(images, key=lambda path: (natural(str(path)), str(path))), sorted(left, key=lambda one: one.name)


def endings_of(extensions: Sequence[str] | None) -> frozenset[str]:
    """The extensions of images, in lower case with their dot: the given ones, or all that Pillow can read here.

    Files are decoded by their content, so any extension may be given.

    Raises:
        UsageError: the list is empty, or holds something that is not an extension.
    """
    if extensions is None:
        return endings_of_pillow()
    found = frozenset(f".{one.lower().lstrip('*').lstrip('.')}" for one in extensions)
    if not found or any(not one[1:] or "/" in one for one in found):
        raise UsageError(
            f"gmml: extensions={tuple(extensions)} are not file extensions. Give, for example, --extensions .jpg .png."
        )
    return found


def no_image(name: str, *, chosen: bool = False) -> LeftOut:
    """Say why a file with another extension is skipped; with ``chosen``, the user has set the extensions of images."""
    ending = os.path.splitext(name)[1].lower()  # noqa: PTH122  # .jpg alone has no suffix
    if chosen:
        return LeftOut(name, f"not one of --extensions ({ending or 'no extension'})", lost=False)
    if ending in _PHOTOGRAPHS:
        return LeftOut(name, _PHOTOGRAPHS[ending])
    return LeftOut(name, f"not an image ({ending or 'no extension'})", lost=False)


def is_hidden(name: str) -> bool:
    """True for files and folders that operating systems hide or create themselves."""
    return name.startswith(".") or name in _HIDDEN


def is_run(folder: Path) -> bool:
    """True if the folder holds a run: its pictures are not data."""
    return (folder / "config.json").is_file() and any((folder / name).exists() for name in _RUN)


def natural(name: str) -> tuple[int | str, ...]:
    """A sort key that treats digits in names as numbers and ignores case."""
    parts = re.split(r"(\d+)", name.lower())
    return tuple(int(part) if place % 2 else part for place, part in enumerate(parts))


def told(
    who: str,
    what: str,
    where: str,
    *,
    images: int,
    classes: Sequence[str] = (),
    several: bool = False,
    left: Iterable[LeftOut] = (),
    notes: Iterable[str] = (),
    broken: int = 0,
) -> list[str]:
    """Summarise what was found: one line, then one for each guess and for each reason why something was skipped.

    Args:
        who: the name of the command, for messages.
        what: the kind of images, for example "training images".
        where: they lie.
        images: the number of images.
        classes: the names of the classes or labels.
        several: True if an image may have several labels.
        left: files and folders that are not part of the data.
        notes: guesses.
        broken: the number of images that could not be read so far.
    """
    by_reason: dict[str, list[str]] = {}
    for one in left:
        by_reason.setdefault(one.reason, []).append(one.name)
    kind = ("label" if several else "class") + ("" if len(classes) == 1 else "s" if several else "es")
    named = f", {len(classes)} {kind} ({_some(classes, 10)})" if classes else ""
    count = sum(map(len, by_reason.values())) + broken
    aside = f", {count} left out" if count else ""
    lines = [f"{who}: {images} {what} in {shown(where)}{named}{aside}"]
    lines += [f"  {shown(note)}" for note in notes]
    lines += [f"  left out: {len(names)}, {shown(reason)}: {_some(names, 3)}" for reason, names in by_reason.items()]
    return lines


def _some(names: Sequence[str], most: int) -> str:
    return ", ".join(shown(name) for name in names[:most]) + (", ..." if len(names) > most else "")
