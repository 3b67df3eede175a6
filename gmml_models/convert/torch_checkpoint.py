"""Other people's torch checkpoints (.pth), read without running any code in them.

A pickle is a program. No unpickler runs here, not even torch's, so there is nothing to bypass: `pickle_steps` evaluates the
program on plain data. One parser checks the container, including all sizes, before anything is allocated, and tensors are views
of the mapped file.
"""

from __future__ import annotations

import io
import math
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from gmml_models.convert.pickle_calls import Name, Namespace, Number, RefusedError, Storage, Strided, Unread, only
from gmml_models.convert.pickle_steps import Steps
from gmml_models.errors import NotThereError, UnreadableFileError
from gmml_models.hub.safetensors_check import MOST_BYTES

_PICKLE = 8 << 20  # a ViT-L with its teacher and optimiser needs 0.4 MB
_VALUES, _DEPTH, _ENTRIES, _AXES = 200_000, 64, 100_000, 8
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, EOFError, struct.error, RuntimeError, Warning)


def read_checkpoint(path: str | os.PathLike[str], *, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """Read a file written by ``torch.save`` as plain data and tensors; no code in the file is run.

    An ``argparse.Namespace`` becomes a dict of its content, a path or device a string, a set a list, a numpy scalar a number, a
    parameter a tensor, and a defaultdict a dict. Anything that is neither plain data nor a tensor, such as a NumPy array, an Enum
    or an object of a class, is replaced by an `Unread`. Both formats of torch.save are supported. Tensors are views of the file,
    copied on write: keep the file unchanged while they are in use.

    Args:
        path: the checkpoint.
        most_bytes: the size above which a file is refused.

    Raises:
        NotThereError: the file does not exist.
        UnreadableFileError: the file is something else, is damaged, or contains a function call, which the message names.
            None of its code was run, and nothing in it was used.
    """
    try:
        return _read(Path(path), most_bytes)
    except RefusedError as error:
        raise UnreadableFileError(f"read_checkpoint: {os.fspath(path)} {error}") from error


_DAMAGED = "None of its code was run. It may be damaged: download it again."


def _read(path: Path, most_bytes: int) -> dict[str, Any]:
    if path.is_dir():
        raise RefusedError("is a folder. Give the checkpoint file in it; a folder of safetensors needs no conversion.")
    if path.exists() and not path.is_file():  # opening a pipe would wait
        raise RefusedError("is not a regular file. Give the path of a checkpoint.")
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not 0 < size <= most_bytes:
                what = f"holds {size:,} bytes" if size else "is empty"
                raise RefusedError(f"{what}. Give a checkpoint of 1 to {most_bytes:,} bytes (most_bytes=).")
            mapped = _Mapped(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError as error:
        raise NotThereError(
            f"read_checkpoint: {path} does not exist. Give the path of a checkpoint that was downloaded."
        ) from error
    except OSError as error:
        raise RefusedError(f"could not be opened: {error.strerror or error}.") from error
    head = bytes(mapped[:512])
    _tell_what_it_is(head, size)
    try:
        result = _from_zip(mapped) if head[:2] == b"PK" else _from_pickles(mapped)
    except _MALFORMED as error:
        raise RefusedError(f"is not what torch.save writes ({type(error).__name__}: {str(error)[:200]}). {_DAMAGED}") from error
    except zipfile.BadZipFile as error:
        raise RefusedError(f"is a zip archive that is cut short or damaged ({str(error)[:200]}). Download it again.") from error
    if isinstance(result, Unread):
        raise RefusedError(
            f"holds an object, {result.text}, not a dict of networks. If it is your own model, save its tensors: "
            "torch.save(model.state_dict(), path)."
        )
    if not isinstance(result, dict):
        raise RefusedError(f"holds a {type(result).__name__}, not a dict of networks. Give a training checkpoint.")
    return result


def _tell_what_it_is(head: bytes, size: int) -> None:
    """Refuse files that are commonly mistaken for a checkpoint."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        raise RefusedError("is a git-lfs pointer, not the file itself. Fetch it with git lfs pull.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        raise RefusedError(
            "is a web page, not a checkpoint: a page was downloaded instead of the file. Download the file in a browser."
        )
    if len(head) > 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        raise RefusedError(
            "is a safetensors file. Give it to gmml_models.encoder_from, or give the gmml folder that contains it to "
            "from_pretrained."
        )
    if head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!")) or head[257:262] == b"ustar":
        raise RefusedError("is a packed archive. Unpack it first, or save it again with a newer torch if it is yours.")
    if head[:2] != b"PK" and head[:1] not in {b"\x80", b"c", b"("}:
        raise RefusedError(f"does not begin like a checkpoint written by torch.save ({head[:8]!r}). Give a .pth file.")


class _Mapped(mmap.mmap):
    """A mapped file that refuses to read large pieces: neither a zip's index nor a pickle may be large."""

    def read(self, count: int | None = -1) -> bytes:
        if min(len(self) - self.tell(), count if count is not None and count >= 0 else len(self)) > _PICKLE:
            raise RefusedError(f"has an index or a pickle of more than {_PICKLE:,} bytes, which no network needs. Nothing was run.")
        return super().read(count)


def _from_zip(mapped: _Mapped) -> Any:
    with zipfile.ZipFile(cast(IO[bytes], mapped)) as archive:
        entries = archive.infolist()
    names = {entry.filename: entry for entry in entries}
    for entry in entries:
        if ".." in Path(entry.filename).parts or entry.filename.startswith("/") or "\\" in entry.filename:
            raise RefusedError(f"is a zip archive with the unsafe name {entry.filename[:200]!r}. Nothing in it was used.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size or entry.flag_bits & 1:
            raise RefusedError(
                f"is a zip archive whose {entry.filename[:200]!r} is compressed; torch.save compresses nothing. Nothing was "
                "unpacked."
            )
    if len(names) != len(entries) or len(entries) > _ENTRIES or sum(entry.file_size for entry in entries) > len(mapped):
        raise RefusedError(f"is a zip archive of {len(entries):,} entries, which overlap or are too many. Nothing in it was used.")
    found = [name.removesuffix("data.pkl") for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise RefusedError(
            "is a zip archive, but not one written by torch.save: it holds no data.pkl. If somebody packed it, unpack it first."
        )
    folder = found[0]
    if folder + "constants.pkl" in names:
        raise RefusedError("is a TorchScript program, not a checkpoint. Give a file written by torch.save.")

    def piece(name: str) -> tuple[int, int]:
        entry = names[folder + name]
        start = entry.header_offset
        signature, lengths = mapped[start : start + 4], struct.unpack("<HH", mapped[start + 26 : start + 30])
        first = start + 30 + sum(lengths)
        stop = first + entry.file_size
        if start < 0 or signature != b"PK\x03\x04" or stop > len(mapped):
            raise zipfile.BadZipFile(f"{entry.filename[:100]!r} lies outside the file")
        with memoryview(mapped) as view, view[first:stop] as content:
            if entry.CRC and zlib.crc32(content) != entry.CRC:
                raise zipfile.BadZipFile(f"{entry.filename[:100]!r} does not match its checksum")
        return first, entry.file_size

    def text(name: str) -> bytes:
        first, size = piece(name)
        mapped.seek(first)
        return mapped.read(size)

    if folder + "byteorder" in names and text("byteorder") != b"little":
        raise RefusedError("was written on a big-endian machine. Save it again on a little-endian one.")
    steps = Steps()
    value = steps.value(io.BytesIO(text("data.pkl")))
    places = {}
    for key, storage in steps.storages.items():
        places[key], size = piece("data/" + key)
        if size != storage.count * storage.dtype.itemsize:
            raise ValueError(f"{storage.count:,} numbers are declared for data/{key[:40]!r}, which has {size:,} bytes")
    return _Plain(mapped, places).plain(value)


def _from_pickles(mapped: _Mapped) -> Any:
    """The format before torch 1.6: five pickles, then the numbers."""
    stream = io.BytesIO(mapped[:_PICKLE])
    steps = Steps()
    if steps.value(stream) != _MAGIC or steps.value(stream) != _PROTOCOL:
        raise RefusedError("is a pickle, but was not written by torch.save. None of its code was run.")
    if steps.value(stream).get("little_endian") is not True:
        raise RefusedError("was written on a big-endian machine. Save it again on a little-endian one.")
    value, keys = steps.value(stream), steps.value(stream)
    if sorted(only(keys, list)) != sorted(steps.storages):
        raise ValueError("the list of tensors does not match the networks")
    places, at = {}, stream.tell()
    for key in keys:
        storage = steps.storages[key]
        if struct.unpack("<q", mapped[at : at + 8])[0] != storage.count:
            raise ValueError(f"tensor data {key[:40]!r} is not as long as declared, or the file is cut short")
        places[key] = at + 8
        at += 8 + storage.count * storage.dtype.itemsize
        if at > len(mapped):
            raise ValueError("the file is cut short")
    return _Plain(mapped, places).plain(value)


class _Plain:
    """Converts values to plain data and tensors, refusing cycles, deep nesting, and values that grow when they are expanded."""

    def __init__(self, mapped: _Mapped, places: Mapping[str, int]) -> None:
        self.mapped, self.places = mapped, places
        self.done: dict[int, tuple[Any, int, int]] = {}
        self.flat: dict[str, Tensor] = {}
        self.bytes = 0

    def plain(self, value: Any) -> Any:
        return self._plain(value, 1)[0]

    def _plain(self, value: Any, depth: int) -> tuple[Any, int, int]:
        """The value, its depth, and the number of values that it expands to."""
        if id(value) in self.done:
            return self.done[id(value)]
        if depth > _DEPTH:
            raise RefusedError(
                f"holds values that are nested more than {_DEPTH} levels deep, or contain themselves. None of its code was run."
            )
        inner: list[tuple[Any, int, int]] = []
        made: Any = value
        match value:
            case Namespace() | dict():
                content = (value.state or {}) if isinstance(value, Namespace) else value
                inner = [self._plain(each, depth + 1) for each in content.values()]
                made = dict(zip(content, (each for each, _, _ in inner), strict=True))
            case list() | tuple():
                inner = [self._plain(each, depth + 1) for each in value]
                made = type(value)(each for each, _, _ in inner)
            case Strided():
                made = self._tensor(value)
            case Name():
                made = value.text
            case Number():
                made = Unread("numpy.dtype")
            case Storage():
                raise ValueError("a storage is used outside a tensor")
        height, count = 1 + max((each[1] for each in inner), default=0), 1 + sum(each[2] for each in inner)
        if height > _DEPTH or count > _VALUES:
            raise RefusedError(
                f"holds values that are nested more than {_DEPTH} levels deep or unfold to more than {_VALUES:,}. None of "
                "its code "
                "was run."
            )
        self.done[id(value)] = made, height, count
        return self.done[id(value)]

    def _tensor(self, value: Strided) -> Tensor:
        storage, size, stride = value.storage, value.size, value.stride
        if not len(size) == len(stride) <= _AXES or any(type(n) is not int or n < 0 for n in (value.offset, *size, *stride)):
            raise ValueError("a tensor of impossible shape")
        numbers = math.prod(size)
        last = value.offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if numbers else -1
        if last >= storage.count or (numbers > storage.count and numbers * storage.dtype.itemsize > len(self.mapped)):
            raise ValueError(f"a tensor of shape {size} on {storage.count:,} numbers")
        self.bytes += numbers * storage.dtype.itemsize
        if self.bytes > 4 * len(self.mapped):
            raise RefusedError(
                "holds tensors that share memory in such a way that they expand to more than four times the size of the file."
            )
        if not numbers:
            return torch.empty(size, dtype=storage.dtype)
        if storage.key not in self.flat:
            self.flat[storage.key] = self._numbers(storage)
        found = self.flat[storage.key].as_strided(size, stride, value.offset)
        found = found.conj().resolve_conj() if "conj" in value.lazily else found
        return -found if "neg" in value.lazily else found

    def _numbers(self, storage: Storage) -> Tensor:
        start, length = self.places[storage.key], storage.count * storage.dtype.itemsize
        if start % storage.dtype.itemsize == 0:
            return torch.frombuffer(self.mapped, dtype=storage.dtype, count=storage.count, offset=start)
        with memoryview(self.mapped) as view, view[start : start + length] as content:
            return torch.frombuffer(bytearray(content), dtype=storage.dtype, count=storage.count)
