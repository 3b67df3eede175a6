"""Opens the images of a folder, an archive or a CSV, and reports which files are skipped and which folders are the classes."""

from __future__ import annotations

import difflib
import os
from itertools import chain
from pathlib import Path, PurePosixPath

from gmml_models.data.archives import open_archive
from gmml_models.data.files import FileSource, LooseFiles
from gmml_models.data.image_files import known_endings
from gmml_models.data.labels_csv import read_labels
from gmml_models.data.scan import LeftOut, is_hidden, is_run, scan
from gmml_models.data.splits import TEST_SPLITS, TRAIN_SPLITS, Wanted, choose_split, class_folders
from gmml_models.errors import UsageError


def open_files(path: Path, wanted: Wanted) -> FileSource:
    """Open a folder or an archive.

    Raises:
        UsageError: the path does not exist, holds no images, or its labels do not fit.
    """
    channels, csv, multi_label = wanted.channels, wanted.csv, wanted.multi_label
    if channels not in (1, 3):
        raise UsageError(
            f"gmml: image files have 1 or 3 channels, but in_chans is {channels}. For other numbers, give a data set in Python."
        )
    if not path.exists():
        raise UsageError(
            f"gmml: there is no '{path}'{_close_names(path)}. Give a folder or archive of images, or a data set as timm names it "
            "(wds/..., hfds/...)."
        )
    wants_csv = bool(multi_label) or csv is not None
    if path.is_file():
        if wants_csv:
            raise UsageError(f"gmml: labels in a CSV need a folder of images, but {path} is a file. Unpack it first.")
        return open_archive(path, wanted)
    if not path.is_dir():
        raise UsageError(f"gmml: {path} is neither a folder nor a file. Give a folder or an archive of images.")
    tops = {one.name for one in path.iterdir() if _may_hold_images(one, wanted.output)}
    chosen = choose_split(
        str(path), tops, wanted.split, wanted.purpose, wanted.own, lambda name: any(map(_may_hold_images, (path / name).iterdir()))
    )
    folder = path / chosen if chosen else path
    if wants_csv or (multi_label is None and wanted.labelled):
        places = [folder, path, *([path.parent] if path.name in TRAIN_SPLITS + TEST_SPLITS else [])]
        tables = [csv] if csv is not None else [place / "labels.csv" for place in places]
        there = next((table for table in tables if table.is_file()), None)
        if there is not None:
            rows = read_labels(there, folder, wanted.columns, multi_label=multi_label)
            paths, left = scan(folder, own=wanted.output, extensions=wanted.extensions)
            named = {str(file) for file in rows.files}
            unnamed = [file for file in paths if os.path.abspath(file) not in named]  # noqa: PTH100  # links stay, as in the CSV
            left += [LeftOut(file.relative_to(folder).as_posix(), f"not listed in {there.name}", lost=False) for file in unnamed]
            return FileSource(
                LooseFiles(rows.files, rows.names),
                rows.labels,
                classes=rows.classes,
                channels=channels,
                multi_label=rows.labels.ndim == 2,
                where=str(folder),
                left=left,
                notes=rows.notes,
            )
        if wants_csv:
            raise UsageError(
                f"gmml: there is no {tables[0]}. Give --labels FILE.csv: first column the file, then one 0/1 column per label, "
                "or one column with the class."
            )
    paths, left = scan(folder, own=wanted.output, extensions=wanted.extensions)
    if not paths:
        if any(folder.glob("*.tar")):
            raise UsageError(f"gmml: {folder} holds tars. Give one of them, or wds/{folder} if they are shards.")
        aside = f" Left out: {len(left)}, the first {left[0].name} ({left[0].reason})." if left else ""
        raise UsageError(f"gmml: {folder} holds no images.{aside} Known endings: {known_endings()}.")
    names = [file.relative_to(folder).as_posix() for file in paths]
    parts = [PurePosixPath(name).parent.parts for name in names]
    targets, classes, notes = class_folders(str(folder), parts, level=wanted.level, known=wanted.known, labelled=wanted.labelled)
    return FileSource(
        LooseFiles(paths, names), targets, classes=classes, channels=channels, where=str(folder), left=left, notes=notes
    )


def _close_names(path: Path) -> str:
    """Similar names in the same folder, which the user may have meant."""
    try:
        beside = [one.name for one in path.parent.iterdir()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, beside, n=3)
    return f" (there is {', '.join(repr(name) for name in close)})" if close else ""


def _may_hold_images(path: Path, output: Path | None = None) -> bool:
    """True for a subfolder that may be a split or a class: not the folder of a run, nor one that holds only runs."""
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
