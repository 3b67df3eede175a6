"""Image files and folders as given on a command line, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gmml_models.data.archives import is_archive, open_archive
from gmml_models.data.files import FileSource, LooseFiles
from gmml_models.data.image_files import known_endings
from gmml_models.data.scan import LeftOut, scan
from gmml_models.data.splits import Wanted
from gmml_models.errors import UsageError


def open_paths(paths: Sequence[Path], *, channels: int, who: str) -> FileSource:
    """Open image files, and folders of them at any depth, as one data set without labels; each is named by its path.

    Args:
        paths: files and folders, or one archive.
        channels: 1 or 3.
        who: the name of the command, for errors.

    Raises:
        UsageError: a path does not exist, an archive is not the only path, or there is no image.
    """
    if channels not in (1, 3):
        raise UsageError(f"{who}: image files have 1 or 3 channels, but the weights take {channels}. Give a data set in Python.")
    if len(paths) == 1 and is_archive(paths[0]):
        return open_archive(paths[0], Wanted(channels=channels), whole=True)
    files, left = list[Path](), list[LeftOut]()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{who}: there is no {path}. Give image files, or folders of them.")
        if path.is_dir():
            found, aside = scan(path)
            files += found
            left += [LeftOut((path / one.name).as_posix(), one.reason, one.lost) for one in aside]
        elif is_archive(path):
            raise UsageError(f"{who}: {path} is an archive, but was given with other paths. Give it alone.")
        else:
            files.append(path)
    if not files:
        words = f" Left out: {len(left)}, the first {left[0].name} ({left[0].reason})." if left else ""
        raise UsageError(f"{who}: there is no image in {', '.join(map(str, paths))}.{words} Known endings: {known_endings()}.")
    where = ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")
    return FileSource(LooseFiles(files, [file.as_posix() for file in files]), None, channels=channels, where=where, left=left)
