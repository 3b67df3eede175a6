"""labels.csv: several labels an image. First column the file, relative to the CSV; then one 0/1 column a label."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from gmml_models.errors import UsageError

_VALUES = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0}


class LabelTable(NamedTuple):
    """The images that a CSV names."""

    files: tuple[Path, ...]
    names: tuple[str, ...]  # as the CSV writes them
    labels: Tensor  # (N, c) float32 of 0 and 1
    classes: tuple[str, ...]  # of the labels


def read_labels(path: Path, folder: Path) -> LabelTable:
    """Read the rows whose files lie in a folder.

    A column is a label if most of its values are 0 or 1; all others, such as licence texts, are ignored.

    Args:
        path: of the CSV, UTF-8.
        folder: only files in it, at any depth, are taken.

    Raises:
        UsageError: no such CSV, or one without a column of files, without a label, with a value that is neither 0 nor 1 in a label,
            with missing files, or without a row for this folder.
    """
    header, rows = _table(path)
    base, inside = os.path.abspath(path.parent), os.path.join(os.path.abspath(folder), "")  # noqa: PTH100, PTH118
    files = [os.path.normpath(os.path.join(base, row[0])) for row in rows]  # noqa: PTH118
    there = [number for number, file in enumerate(files) if file.startswith(inside)]
    missing = [number for number in there or range(len(rows)) if not Path(files[number]).is_file()]
    if len(missing) == len(rows):
        raise UsageError(
            f"gmml: {path}: the first column, {header[0]!r}, holds no files: there is no {files[0]}. "
            "The first column is the path of the image, relative to the CSV."
        )
    if not there:
        raise UsageError(f"gmml: {path} names {len(rows)} files, none of them in {folder}. Give the folder that holds them.")
    if missing:
        raise UsageError(
            f"gmml: {path} names {len(missing)} files that are not there, first in line {missing[0] + 2}: {rows[missing[0]][0]}. "
            "Paths are relative to the CSV. Mend or remove these lines."
        )
    if len(set(files)) < len(files):
        seen: set[str] = set()
        twice = next(file for file in files if file in seen or seen.add(file))  # type: ignore[func-returns-value]
        raise UsageError(f"gmml: {path} names {twice} twice. Give every file one line.")
    columns = _label_columns(path, header, rows)
    values = [[_VALUES[rows[number][column].strip()] for column in columns] for number in there]
    return LabelTable(
        files=tuple(Path(files[number]) for number in there),
        names=tuple(rows[number][0] for number in there),
        labels=torch.tensor(values, dtype=torch.float32),
        classes=tuple(header[column].strip() for column in columns),
    )


def _table(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(
            f"gmml: {path} could not be read as a CSV in UTF-8 ({error}). Give one with a line of column names."
        ) from error
    if len(rows) < 2:
        raise UsageError(f"gmml: {path} holds no images. Give a line of column names, then one line an image.")
    header = rows[0]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UsageError(
                f"gmml: {path}, line {number}, has {len(row)} columns, and the first line has {len(header)}. Mend that line."
            )
    return header, rows[1:]


def _label_columns(path: Path, header: list[str], rows: list[list[str]]) -> list[int]:
    columns = []
    for column in range(1, len(header)):
        odd = [number for number, row in enumerate(rows) if row[column].strip() not in _VALUES]
        if 2 * len(odd) >= len(rows):
            continue
        if odd:
            raise UsageError(
                f"gmml: {path}, line {odd[0] + 2}: the label {header[column]!r} is {rows[odd[0]][column]!r}. Allowed are 0 and 1."
            )
        columns.append(column)
    if not columns:
        raise UsageError(
            f"gmml: {path} has no label: none of its columns {header[1:]} holds 0 and 1. Give one column of 0 and 1 for each label."
        )
    return columns
