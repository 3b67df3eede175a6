"""A folder in a zip or in a compressed tar is what it is outside, and says what is left out of it."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gmml_models.data import archives
from gmml_models.data.dataset import Source
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from tests.models.data_files import write_classes


def pack_zip(path: Path, root: Path, *, top: str = "", how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as packed:
        for file in sorted(root.rglob("*")):
            packed.write(file, f"{top}{file.relative_to(root).as_posix()}")
    return path


def pack_tar(path: Path, root: Path, how: str) -> Path:
    # the mode says how it is packed
    with tarfile.open(path, f"w:{how}") as packed:  # type: ignore[call-overload]
        packed.add(root, "photographs")
    return path


PACKERS: dict[str, Callable[[Path, Path], Path]] = {
    "a.zip": lambda path, root: pack_zip(path, root, top="photographs/"),
    "stored.ZIP": lambda path, root: pack_zip(path, root, how=zipfile.ZIP_STORED),
    "a.tar.gz": lambda path, root: pack_tar(path, root, "gz"),
    "a.tgz": lambda path, root: pack_tar(path, root, "gz"),
    "a.tar.bz2": lambda path, root: pack_tar(path, root, "bz2"),
    "a.tar.xz": lambda path, root: pack_tar(path, root, "xz"),
}


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes to train on and to test on."""
    root = tmp_path_factory.mktemp("photographs")
    write_classes(root / "train", {"cat": 3, "dog": 2})
    write_classes(root / "test", {"cat": 1, "dog": 1}, first=30)
    (root / "train" / "cat" / ".hidden.png").write_text("junk")
    return root


def items(source: Source) -> list[tuple[torch.Tensor, Any]]:
    return [source[number] for number in range(len(source))]


@pytest.mark.parametrize("name", PACKERS)
def test_an_archive_is_read_as_the_folder_in_it(name: str, photographs: Path, tmp_path: Path) -> None:
    packed = PACKERS[name](tmp_path / name, photographs)
    for purpose, config in (("train", FinetuneConfig), ("test", EvaluateConfig)):
        made: Any = config
        opened: Any = open_source
        folder = opened(made(data=str(photographs)), purpose=purpose)
        archive = opened(made(data=str(packed)), purpose=purpose)
        assert archive.classes == folder.classes == ("cat", "dog")
        assert list(archive.labels()) == list(folder.labels())
        for (one, label), (other, wanted) in zip(items(archive), items(folder), strict=True):
            assert torch.equal(one, other)
            assert label == wanted
        assert archive.where == str(packed)
        assert [one.reason for one in archive.left] == ["hidden"]
    again = open_source(FinetuneConfig(data=str(packed)), purpose="train")
    assert again.identity() == open_source(FinetuneConfig(data=str(packed)), purpose="train").identity()


def test_what_is_left_out_of_a_zip_is_told(photographs: Path, tmp_path: Path) -> None:
    packed = pack_zip(tmp_path / "a.zip", photographs)
    with zipfile.ZipFile(packed, "a") as more:
        more.writestr("train/notes.txt", "words")
        more.writestr("train/raw.nef", "raw")
        more.write(next((photographs / "train" / "dog").iterdir()), "train/dog/odd.png", zipfile.ZIP_LZMA)
    source = open_source(PretrainConfig(data=str(packed)))
    assert isinstance(source, Source)
    told = {one.name: (one.reason, one.lost) for one in source.left}
    assert told["train/notes.txt"] == ("not an image (.txt)", False)
    assert told["train/raw.nef"] == ("this format is not supported: convert it to JPEG or PNG", True)
    assert told["train/dog/odd.png"] == ("compressed by a method other than deflate", True)
    assert source.lost == 2


def test_a_damaged_file_in_a_zip_is_named_and_stepped_over(photographs: Path, tmp_path: Path) -> None:
    packed = pack_zip(tmp_path / "a.zip", photographs, how=zipfile.ZIP_STORED)
    with zipfile.ZipFile(packed) as archive:
        place = archive.getinfo("train/cat/001.png").header_offset
    held = bytearray(packed.read_bytes())
    held[place + 80] ^= 255
    packed.write_bytes(held)
    source = open_source(FinetuneConfig(data=str(packed)), purpose="train")
    assert source.read(1) is None
    assert source.broken == {"train/cat/001.png": "damaged: its content does not match the checksum in the zip"}
    assert source.read(0) is not None


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tar", "a.rar"])
def test_what_is_no_archive_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"junk, and more of it" * 100)
    with pytest.raises(UsageError, match=name):
        open_source(PretrainConfig(data=str(tmp_path / name)))


def test_the_copy_of_a_compressed_tar_is_made_once(photographs: Path, tmp_path: Path) -> None:
    packed = pack_tar(tmp_path / "a.tar.gz", photographs, "gz")
    first = archives._unpacked(packed)
    assert first == archives._unpacked(packed)
    assert first.parent.name.startswith("gmml-")


def test_endings_are_what_the_user_says(photographs: Path, tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 2})
    write_classes(root, {"cat": 1, "dog": 1}, first=9, ending="jpg")
    (root / "cat" / "000.png").rename(root / "cat" / "odd.IMG")  # by its content a PNG
    for data in (root, pack_zip(tmp_path / "a.zip", root)):
        chosen = open_source(PretrainConfig(data=str(data), extensions=("img", "*.JPG")))
        assert isinstance(chosen, Source)
        assert {chosen.name(number) for number in range(len(chosen))} == {"cat/000.jpg", "cat/odd.IMG", "dog/000.jpg"}
        assert all(isinstance(one, torch.Tensor) for one, _ in items(chosen))
        assert {one.reason for one in chosen.left} == {"not one of --extensions (.png)"}
        assert not chosen.lost
    with pytest.raises(UsageError, match=r"are not file extensions. Give, for example, --extensions .jpg .png"):
        open_source(PretrainConfig(data=str(root), extensions=()))
