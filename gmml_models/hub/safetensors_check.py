"""Reads safetensors files that may be damaged or hostile: first the hash, then the header, then the tensors; never a pickle."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gmml_models.errors import NotThereError, UnreadableFileError, WrongBytesError

if TYPE_CHECKING:
    from torch import Tensor

SHA256 = re.compile(r"[0-9a-f]{64}")

MOST_BYTES = 8 << 30

_MOST_HEADER, _MOST_AXES, _MOST_NAME = 16 << 20, 8, 512
_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8, "F16": 2, "BF16": 2, "F32": 4, "F64": 8}
_LOOKS = {
    b"PK\x03\x04": "a zip archive as written by torch.save: a pickle, which may run code",
    b"\x80": "a pickle, which may run code",
    b"version https://git-lfs": "a git-lfs pointer: run `git lfs pull` in its folder, or download the file itself",
    b"<": "an HTML or XML page: an error page saved under the name of a file",
    b"{": "JSON",
    b"\x1f\x8b": "a gzip archive",
    b"\x89HDF": "an HDF5 file",
}


def check_sha256(path: str | os.PathLike[str], expected: str | None, *, who: str) -> None:
    """Compare the sha256 of a file with the expected one; with None, nothing is checked.

    Raises:
        ValueError: ``expected`` is not 64 lower-case hex digits.
        WrongBytesError: the hash differs.
    """
    if expected is None:
        return
    if not SHA256.fullmatch(expected):
        raise ValueError(f"{who}: sha256={expected!r} is not a hash. Give 64 lower-case hex digits.")
    regular_size(path, who)
    found = sha256_of(path)
    if found != expected:
        raise WrongBytesError(
            f"{who}: {os.fspath(path)} has sha256 {found}, but {expected} was expected; it looks like {looks_like(path)}. It "
            "is damaged, or the expected hash is that of another revision. Load again with force_download=True to "
            "replace the file in the "
            f"cache; "
            "if that does not help, name the revision that the hash belongs to, or copy the folder again."
        )


def read_tensors(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    device: str = "cpu",
    most_bytes: int = MOST_BYTES,
    finite: bool = True,
) -> dict[str, Tensor]:
    """Read a safetensors file that may be hostile, checking first its hash, then its header, then the tensors; never a pickle.

    Args:
        path: the file.
        sha256: the expected hash; None opens the file unchecked.
        device: the device of the tensors.
        most_bytes: the size in bytes above which files are refused.
        finite: True to refuse weights that are not finite.

    Raises:
        NotThereError: the file does not exist.
        WrongBytesError: another hash.
        UnreadableFileError: the file is too large, is not a valid safetensors file, or holds values that are not finite.
    """
    who = "read_tensors"
    size = regular_size(path, who)
    if size > most_bytes:
        raise UnreadableFileError(f"{who}: {os.fspath(path)} holds {size} bytes; the limit is most_bytes={most_bytes}.")
    check_sha256(path, sha256, who=who)
    check_header(path, who=who)
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path, device=device)
    except SafetensorError as error:
        raise UnreadableFileError(f"{who}: {os.fspath(path)} is not a valid safetensors file: {error}") from error
    wrong = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()] if finite else []
    if wrong:
        raise UnreadableFileError(
            f"{who}: {os.fspath(path)} holds weights that are not finite, in {len(wrong)} of {len(tensors)} tensors: "
            f"{', '.join(sorted(wrong)[:5])}. The training run diverged; give finite=False to inspect the weights."
        )
    return tensors


def check_header(path: str | os.PathLike[str], *, who: str) -> None:
    """Refuse a file whose safetensors header is not complete and plain; only the header is read.

    Raises:
        NotThereError: the file does not exist.
        UnreadableFileError: the header is not valid; the message says what is wrong.
    """
    size = regular_size(path, who)

    def refuse(problem: str) -> NoReturn:
        raise UnreadableFileError(f"{who}: {os.fspath(path)} is not a valid safetensors file: {problem}. Nothing in it was used.")

    with Path(path).open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size - 8 or (head := file.read(1)) != b"{":
            refuse(f"it looks like {looks_like(path)}")
        if length > _MOST_HEADER:
            refuse(f"a header of {length} bytes; allowed: at most {_MOST_HEADER}")
        head += file.read(length - 1)
    try:
        header = json.loads(head.decode("utf-8"), object_pairs_hook=_once, parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        refuse(f"its header is not JSON ({str(error)[:200]})")
    about = header.pop("__metadata__", {})
    if not isinstance(about, dict) or not all(isinstance(value, str) for value in about.values()):
        refuse("its metadata is not text")
    spans = []
    for name, entry in header.items():
        if not 0 < len(name) <= _MOST_NAME or not name.isprintable() or ".." in name or name[0] in "/\\":
            refuse(f"a tensor is named {name[:80]!r}; names must be printable, without '..' and must not start with a slash")
        if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
            refuse(f"{name!r} is not described by dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _BYTES:
            refuse(f"{name!r} has dtype {str(dtype)[:80]!r}; allowed: {', '.join(_BYTES)}")
        if not _counts(shape) or len(shape) > _MOST_AXES:
            refuse(f"{name!r} has shape {str(shape)[:80]}; allowed: at most {_MOST_AXES} whole numbers of at least 0")
        if not _counts(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != prod(shape) * _BYTES[dtype]:
            refuse(
                f"{name!r}, {dtype} {shape}, takes {prod(shape) * _BYTES[dtype]} bytes, which does not match {str(offsets)[:80]}"
            )
        spans.append((offsets[0], offsets[1], name))
    at = 0
    for begin, end, name in sorted(spans):
        if begin != at:
            refuse(f"{name!r} begins at {begin}, but the tensor before it ends at {at}")
        at = end
    if at != size - 8 - length:
        refuse(f"its tensors take {at} bytes, but {size - 8 - length} follow the header; the file is cut short or has extra bytes")


def regular_size(path: str | os.PathLike[str], who: str) -> int:
    """Return the size of a regular file; other files are refused, because opening a pipe or a device could block forever.

    Raises:
        NotThereError: the file does not exist.
        UnreadableFileError: the path is not a regular file.
    """
    try:
        found = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotThereError(f"{who}: no file {os.fspath(path)}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError(f"{who}: {os.fspath(path)} is not a regular file. Give the path of a file.")
    return found.st_size


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The sha256 of a file, read in pieces."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def looks_like(path: str | os.PathLike[str]) -> str:
    """Say what a file seems to be, judging by its first bytes."""
    with Path(path).open("rb") as file:
        start = file.read(64)
    if not start:
        return "an empty file"
    for mark, words in _LOOKS.items():
        if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(mark):
            return words
    return "safetensors, perhaps cut short" if start[8:9] == b"{" else "an unknown format"


def no_constant(word: str) -> NoReturn:
    """Refuse NaN and Infinity, which are not JSON; for ``json.loads(parse_constant=)``."""
    raise ValueError(f"{word} is not JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _counts(value: object) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 1 << 63 for number in value)
