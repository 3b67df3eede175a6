"""labels.csv: the first column is the file, relative to the CSV; then one 0/1 column per label, or one column with the class.

Columns are separated by commas, semicolons or tabs.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_models.data.scan import natural
from gmml_models.errors import UsageError

_TRUE, _FALSE = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_CLASS = ("class", "label", "category", "target", "classname", "class_name", "label_name", "species", "breed")
_SEPARATORS = (",", ";", "\t")
_NO = ("-1", "-1.0", "")  # where the column has no other word for it: beside 0 they may say that nobody knows


class LabelTable(NamedTuple):
    """The images that a CSV lists."""

    files: tuple[Path, ...]
    names: tuple[str, ...]  # as the CSV writes them
    labels: Tensor  # (N, c) float32 of 0 and 1, or (N,) int64 where each has one class
    classes: tuple[str, ...]  # their names, or those of the labels
    notes: tuple[str, ...] = ()  # columns that were not taken, and what was read as 0


def read_labels(path: Path, folder: Path, chosen: Sequence[str] | None = None, *, multi_label: bool | None = None) -> LabelTable:
    """Read the rows whose files are in a folder.

    One column holds the class of each image if it is the only column after the file names and either is called class, label,
    category or similar, or holds words other than yes and no, some of them more than once; or if it is the only chosen column and
    holds such words. Otherwise an image may have several labels: a column is a label if most of its values are 0 or 1, true or
    false, yes or no, in any case; or 1 and -1, or 1 and empty cells. All other columns, such as licence texts, are listed in
    ``notes``.

    Args:
        path: the CSV file, in UTF-8.
        folder: only files in it, at any depth, are used.
        chosen: the names of the columns that are labels, or of the one that is the class; None: the rules above decide.
        multi_label: True: columns are labels whatever they are called; None: the rules above decide.

    Raises:
        UsageError: the CSV does not exist; it has no column of files, no label, or no row for this folder; a label value is
            neither 0 nor 1; or files are missing.
    """
    header, rows = _table(path)
    # as text: a table may have a hundred thousand lines, and Path takes ten times as long for each
    base, inside = os.path.abspath(path.parent), os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118
    files = [os.path.normpath(os.path.join(base, row[0])) for row in rows]  # noqa: PTH118
    there = [number for number, file in enumerate(files) if file.startswith(inside)]
    missing = [number for number in there or range(len(rows)) if not Path(files[number]).is_file()]
    if len(missing) == len(rows):
        raise UsageError(
            f"gmml: {path}: the first column, {header[0]!r}, does not hold files: {files[0]} does not exist. "
            "The first column is the path of the image, relative to the CSV."
        )
    if not there:
        raise UsageError(f"gmml: {path} lists {len(rows)} files, none of them in {folder}. Give the folder that holds them.")
    if missing:
        raise UsageError(
            f"gmml: {path} lists {len(missing)} files that do not exist, the first in line {missing[0] + 2}: "
            f"{rows[missing[0]][0]}. "
            "Paths are relative to the CSV. Fix or remove these lines."
        )
    if len(set(files)) < len(files):
        seen: set[str] = set()
        twice = next(file for file in files if file in seen or seen.add(file))  # type: ignore[func-returns-value]  # None: false
        raise UsageError(f"gmml: {path} lists {twice} twice. Give every file a single line.")
    one = None if multi_label else _class_column(header, rows, chosen)
    if one is not None:
        return _classes(path, header, rows, one, there, files)
    columns, notes = _label_columns(path, header, rows, chosen)
    values = [[float(rows[number][column].strip().lower() in _TRUE) for column in columns] for number in there]
    return LabelTable(
        files=tuple(Path(files[number]) for number in there),
        names=tuple(rows[number][0] for number in there),
        labels=torch.tensor(values, dtype=torch.float32),
        classes=tuple(header[column].strip() for column in columns),
        notes=tuple(notes),
    )


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            text = file.read()
        first = next((line for line in text.splitlines() if line.strip()), "")
        parts = {one: len(next(csv.reader([first], delimiter=one), [])) for one in _SEPARATORS}
        separator = max(_SEPARATORS, key=lambda one: parts[one])  # the first of equals
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"gmml: {path} could not be read as a CSV in UTF-8 ({error}). Give one with a line of column names."
        ) from error
    if len(rows) < 2:
        raise UsageError(f"gmml: {path} holds no images. Give a line of column names, then one line per image.")
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UsageError(
                f"gmml: {path}, line {number}, has {len(row)} columns, but the first line has {len(header)}. Fix that line."
            )
    return header, rows[1:]


def _class_column(header: list[str], rows: list[list[str]], chosen: Sequence[str] | None) -> int | None:
    """The column that holds the class of each image; None if the columns are labels."""
    names = [name.strip() for name in header]
    if chosen is not None:
        candidates = [column for column in range(1, len(names)) if names[column] in chosen] if len(chosen) == 1 else []
    else:
        # beside labels of 0 and 1, such as a column "label" among others, nothing is a class
        several = sum(_says_yes_and_no(rows, column) for column in range(1, len(names))) > 1
        called = [column for column in range(1, len(names)) if names[column].lower() in _CLASS and not several]
        candidates = called[:1] or ([1] if len(names) == 2 else [])
    words = {row[candidates[0]].strip() for row in rows} if candidates else set[str]()
    if len(words) < 2:
        return None
    if chosen is None and names[candidates[0]].lower() in _CLASS:
        return candidates[0]
    # words that never come twice are titles or licences
    some = chosen is not None or len(words) < len(rows)
    return candidates[0] if some and not _says_yes_and_no(rows, candidates[0]) else None


def _says_yes_and_no(rows: list[list[str]], column: int) -> bool:
    """True if most values of a column are those of a label."""
    words = [row[column].strip().lower() for row in rows]
    no = _word_for_no(words)
    return 2 * sum(word not in (*_TRUE, *_FALSE, no) for word in words) < len(rows)


def _classes(path: Path, header: list[str], rows: list[list[str]], column: int, there: list[int], files: list[str]) -> LabelTable:
    words = [rows[number][column].strip() for number in there]
    empty = next((number for number, word in zip(there, words, strict=True) if not word), None)
    if empty is not None:
        raise UsageError(f"gmml: {path}, line {empty + 2}: the class {header[column]!r} is empty. Fix or remove that line.")
    classes = tuple(sorted(set(words), key=lambda word: (natural(word), word)))
    number = {name: place for place, name in enumerate(classes)}
    notes = [
        f"the class is the column {header[column].strip()} of {path.name}; use --labels-columns or --multi-label to change this"
    ]
    return LabelTable(
        files=tuple(Path(files[place]) for place in there),
        names=tuple(rows[place][0] for place in there),
        labels=torch.tensor([number[word] for word in words]),
        classes=classes,
        notes=tuple(notes),
    )


def _label_columns(
    path: Path, header: list[str], rows: list[list[str]], chosen: Sequence[str] | None
) -> tuple[list[int], list[str]]:
    names = [name.strip() for name in header]
    strange = [name for name in chosen or () if name not in names[1:]]
    if strange:
        raise UsageError(f"gmml: {path} has no column {strange[0]!r}. Its columns are {names[1:]}.")
    columns, notes, ignored = list[int](), list[str](), list[str]()
    for column in range(1, len(header)):
        if chosen is not None and names[column] not in chosen:
            ignored.append(names[column])
            continue
        words = [row[column].strip().lower() for row in rows]
        no = _word_for_no(words)
        odd = [number for number, word in enumerate(words) if word not in (*_TRUE, *_FALSE, no)]
        if chosen is None and 2 * len(odd) >= len(rows):
            ignored.append(f"{names[column]} (it holds {rows[odd[0]][column][:20]!r})")
            continue
        if odd:
            raise UsageError(
                f"gmml: {path}, line {odd[0] + 2}: the label {header[column]!r} is {rows[odd[0]][column]!r}. Allowed: 0 or 1 "
                "(or true or false; yes or no; 1 or -1; 1 or empty). Fix that line, or name the label columns with "
                "--labels-columns."
            )
        if no is not None:
            notes.append(f"label {names[column]}: {repr(no) if no else 'nothing'} is read as 0")
        columns.append(column)
    if not columns:
        raise UsageError(
            f"gmml: {path} has no labels: none of its columns {header[1:]} holds 0 and 1. Give one column of 0 and 1 for "
            "each label."
        )
    if ignored:
        notes.append(f"columns that are not labels: {', '.join(ignored)}; use --labels-columns to change this")
    return columns, notes


def _word_for_no(words: Sequence[str]) -> str | None:
    """The value that stands for 0 in a column of 1 and -1 or of 1 and empty cells; None for all other columns."""
    kinds = set(words)
    others = kinds - set(_TRUE)
    return next(iter(others)) if len(others) == 1 and len(kinds) > 1 and others <= set(_NO) else None
