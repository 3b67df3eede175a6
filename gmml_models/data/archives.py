"""Images in an archive: a tar or zip is read in place, a compressed tar from a copy that is deleted with the process."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, final

from gmml_models.data.files import Files, FileSource
from gmml_models.data.image_files import known_endings
from gmml_models.data.scan import LeftOut, endings_of, is_hidden, no_image
from gmml_models.data.splits import Wanted, choose_split, class_folders
from gmml_models.errors import UsageError

_COMPRESSED: dict[str, Callable[..., Any]] = {
    ".tar.gz": gzip.open,
    ".tgz": gzip.open,
    ".tar.bz2": bz2.open,
    ".tbz2": bz2.open,
    ".tar.xz": lzma.open,
    ".txz": lzma.open,
}
ARCHIVES = (".tar", ".zip", *_COMPRESSED)
_LARGEST = 1 << 30  # bytes of one file in a zip
_UNPACKED: dict[tuple[str, int, int], tempfile.TemporaryDirectory[str]] = {}  # path, time and size -> where its tar lies


def is_archive(path: Path) -> bool:
    """True if the extension is that of an archive."""
    return path.name.lower().endswith(ARCHIVES) and path.is_file()


@final
@dataclass(frozen=True)
class FilesInTar:
    """Files in an uncompressed tar, by their offset: no open file is shared between threads or forks."""

    path: Path
    places: Sequence[tuple[int, int]]  # first byte, and how many
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """The content of a file."""
        first, count = self.places[index]
        with self.path.open("rb") as file:
            file.seek(first)
            return file.read(count)

    def size(self, index: int) -> int:
        """Size of a file in bytes."""
        return self.places[index][1]


class Packed(NamedTuple):
    """The position of a file in a zip."""

    header: int
    packed: int  # bytes
    size: int
    deflated: bool
    crc: int


@final
@dataclass(frozen=True)
class FilesInZip:
    """Files in a zip, stored or deflated, by their offset: no open file is shared between threads or forks."""

    path: Path
    places: Sequence[Packed]
    names: Sequence[str]

    def read(self, index: int) -> bytes:
        """The content of a file.

        Raises:
            OSError: the file is damaged.
        """
        at = self.places[index]
        with self.path.open("rb") as file:
            file.seek(at.header)
            head = file.read(30)  # its name and another field come behind it
            if head[:4] != b"PK\x03\x04":
                raise OSError("no file begins at its recorded position in the zip")
            file.seek(int.from_bytes(head[26:28], "little") + int.from_bytes(head[28:30], "little"), 1)
            held = file.read(at.packed)
        try:
            found = zlib.decompressobj(-zlib.MAX_WBITS).decompress(held, at.size + 1) if at.deflated else held
        except zlib.error as error:
            raise OSError(f"it cannot be unpacked ({error})") from error
        if len(found) != at.size or zlib.crc32(found) != at.crc:
            raise OSError("its content does not match the checksum in the zip")
        return found

    def size(self, index: int) -> int:
        """Size of a file in bytes."""
        return self.places[index].size


class Member(NamedTuple):
    """An image in an archive."""

    folders: tuple[str, ...]
    name: str
    place: Any


def open_archive(path: Path, wanted: Wanted, *, whole: bool = False) -> FileSource:
    """Open a tar, a zip or a compressed tar; raises the same errors as `gmml_models.data.folders.open_files`.

    With ``whole``, no subfolder is treated as a split.
    """
    extensions = wanted.extensions
    name = path.name.lower()
    if not name.endswith(ARCHIVES):
        raise UsageError(
            f"gmml: {path} is a file, but not an archive: {', '.join(ARCHIVES)}. Give a folder or an archive of images."
        )
    files: type[FilesInTar | FilesInZip] = FilesInZip if name.endswith(".zip") else FilesInTar
    there = _unpacked(path) if name.endswith(tuple(_COMPRESSED)) else path
    found, left = _in_zip(path, extensions) if name.endswith(".zip") else _in_tar(path, there, extensions)
    visible = [one for one in found if not any(map(is_hidden, PurePosixPath(one.name).parts))]
    left += [LeftOut(one.name, "hidden", lost=False) for one in found if any(map(is_hidden, PurePosixPath(one.name).parts))]
    if not visible:
        aside = f", the first file skipped is {left[0].name} ({left[0].reason})" if left else ""
        raise UsageError(f"gmml: {path} holds no images{aside}. Known endings: {known_endings()}.")
    shared = 0  # folders that all of them lie in
    while len({one.folders[: shared + 1] for one in visible}) == 1 and len(visible[0].folders) > shared:
        shared += 1
    below = [one.folders[shared:] for one in visible]
    tops = {parts[0] for parts in below if parts and not whole}
    chosen = choose_split(
        str(path), tops, wanted.split, wanted.purpose, wanted.own, lambda name: any(p[0] == name and len(p) > 1 for p in below if p)
    )
    numbers = [number for number, parts in enumerate(below) if chosen is None or parts[:1] == (chosen,)]
    inner = [below[number][chosen is not None :] for number in numbers]
    targets, classes, notes = class_folders(str(path), inner, level=wanted.level, known=wanted.known, labelled=wanted.labelled)
    held: Files = files(there, [visible[number].place for number in numbers], [visible[number].name for number in numbers])
    return FileSource(held, targets, classes=classes, channels=wanted.channels, where=str(path), left=left, notes=notes)


def _in_tar(path: Path, there: Path, extensions: Sequence[str] | None) -> tuple[list[Member], list[LeftOut]]:
    """The images of a tar, listed by timm's reader and in its order.

    A tar inside the tar counts as a folder when classes are read.
    """
    with _endings(extensions):
        from timm.data.dataset_factory import create_dataset

        try:
            reader = create_dataset("", str(there)).reader
        except (ValueError, AssertionError, tarfile.TarError, OSError) as error:
            raise UsageError(f"gmml: {path} holds no images, or is damaged ({error}). Known endings: {known_endings()}.") from error
    found = []
    for info, _, outer in (sample[:3] for sample in reader.samples):
        around = () if outer is None else (PurePosixPath(outer.name).stem,)
        # a tar inside the tar has its own beginning
        place = (info.offset_data + (outer.offset_data if outer is not None else 0), info.size)
        name = info.name if outer is None else f"{outer.name}/{info.name}"
        found.append(Member(around + PurePosixPath(info.path).parent.parts, name, place))
    return found, []


def _in_zip(path: Path, extensions: Sequence[str] | None) -> tuple[list[Member], list[LeftOut]]:
    """The images of a zip by name, and the files in it that are skipped."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = sorted((one for one in archive.infolist() if not one.is_dir()), key=lambda one: one.filename)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise UsageError(f"gmml: {path} is not a zip, or is damaged ({error}).") from error
    endings, found, left = endings_of(extensions), list[Member](), list[LeftOut]()
    for one in entries:
        name = one.filename
        if not name.lower().endswith(tuple(endings)):
            left.append(no_image(name, chosen=extensions is not None))
        elif one.flag_bits & 1:
            left.append(LeftOut(name, "encrypted"))
        elif one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            left.append(LeftOut(name, "compressed by a method other than deflate"))
        elif one.file_size > _LARGEST:
            left.append(LeftOut(name, f"more than {_LARGEST:,} bytes"))
        else:
            deflated = one.compress_type == zipfile.ZIP_DEFLATED
            place = Packed(one.header_offset, one.compress_size, one.file_size, deflated, one.CRC)
            found.append(Member(PurePosixPath(name).parent.parts, name, place))
    return found, left


def _unpacked(path: Path) -> Path:
    """Unpack a compressed tar, which does not allow random access, to a temporary folder that is deleted when the process ends."""
    about = path.stat()
    key = (str(path.resolve()), about.st_mtime_ns, about.st_size)
    if key not in _UNPACKED:
        opened = next(how for ending, how in _COMPRESSED.items() if path.name.lower().endswith(ending))
        folder = tempfile.TemporaryDirectory(prefix="gmml-")
        try:
            with opened(path, "rb") as packed, Path(folder.name, "images.tar").open("wb") as tar:
                shutil.copyfileobj(packed, tar, 1 << 20)
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            folder.cleanup()
            raise UsageError(
                f"gmml: {path} could not be unpacked to {tempfile.gettempdir()} ({error}). Check that it is complete and that "
                f"there is space; TMPDIR sets another folder."
            ) from error
        _UNPACKED[key] = folder
    return Path(_UNPACKED[key].name, "images.tar")


@contextmanager
def _endings(extensions: Sequence[str] | None) -> Iterator[None]:
    """Let timm's tar reader see all files that we can decode, or those with the user's extensions; it has no argument for this."""
    from timm.data.readers import img_extensions

    known: Any = img_extensions  # timm leaves it untyped
    before = known.get_img_extensions()
    known.set_img_extensions(tuple({*(before if extensions is None else ()), *endings_of(extensions)}))
    try:
        yield
    finally:
        known.set_img_extensions(before)
