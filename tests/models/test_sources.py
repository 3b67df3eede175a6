"""Sources: whatever holds images gives them as uint8 with their labels, names what is broken, and refuses what is no data set."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from gmml_models.data.dataset import Label, Source, Subset, each
from gmml_models.data.decode import decode, to_picture
from gmml_models.data.labels_csv import read_labels
from gmml_models.data.sources import few_shot, open_source
from gmml_models.data.splits import choose_split
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from tests.models.data_files import Array, picture, pixels, truncate, write_classes, write_flat, write_labels, write_tar


def opened(data: Path | str, **options: Any) -> Source:
    """For pretraining: labels where there are some."""
    source = open_source(PretrainConfig(data=str(data), **options))
    assert isinstance(source, Source)
    return source


def for_training(data: Path | str, **options: Any) -> Source:
    """For fine-tuning: labels are needed."""
    return open_source(FinetuneConfig(data=str(data), **options), purpose="train")


def for_testing(data: Path | str, classes: Sequence[str] | None = None, **options: Any) -> Source:
    return open_source(EvaluateConfig(data=str(data), **options), purpose="test", classes=classes)


def array(image: Tensor) -> Array:
    return image.permute(1, 2, 0).numpy()


# folders and tars


def test_class_folders_give_images_labels_and_names(tmp_path: Path) -> None:
    source = opened(write_classes(tmp_path / "data", {"cat": 2, "dog": 3, "ant10": 1, "ant2": 1}))
    assert source.classes == ("ant2", "ant10", "cat", "dog")  # natural order
    assert len(source) == 7
    assert Counter(label for _, label in (source[index] for index in range(7))) == {0: 1, 1: 1, 2: 2, 3: 3}
    assert not source.multi_label
    for index in range(7):
        image, label = source[index]
        assert image.dtype == torch.uint8
        assert isinstance(label, int)
        assert source.name(index).startswith(source.classes[label] + "/")
        file = Image.open(tmp_path / "data" / source.name(index))
        assert np.array_equal(array(image), np.asarray(file))
        assert source.labels()[index] == label


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "flat", 3)
    source = opened(root)
    assert (len(source), source.classes, source[1][1], source.labelled) == (3, (), None, False)
    with pytest.raises(UsageError, match=r"have no labels.*labels\.csv"):
        for_training(root)


def test_a_source_ends_as_a_sequence_does(tmp_path: Path) -> None:
    source = opened(write_flat(tmp_path, 3))
    assert len(list(source)) == 3  # type: ignore[call-overload]
    for index in (3, -1):
        with pytest.raises(IndexError, match="there are 3"):
            source[index]


def test_images_and_classes_come_in_the_order_in_which_people_count(tmp_path: Path) -> None:
    for folder in ("class 2", "class 10"):
        (tmp_path / folder).mkdir()
        for name in ("2.png", "10.png", "B1.png", "a1.png"):
            picture(0).save(tmp_path / folder / name)
    source = opened(tmp_path)
    assert source.classes == ("class 2", "class 10")
    names = ["2.png", "10.png", "a1.png", "B1.png"]
    assert [source.name(index) for index in range(8)] == [f"class {n}/{name}" for n in (2, 10) for name in names]


def test_all_endings_that_pillow_decodes_are_found(tmp_path: Path) -> None:
    from timm.data.readers import img_extensions

    known: Any = img_extensions
    for number, ending in enumerate(["png", "JPG", "jpeg", "webp", "tif", "bmp", "gif", "ppm"]):
        picture(number).save(tmp_path / f"{number}.{ending}")
    (tmp_path / "notes.txt").write_text("not an image")
    assert len(opened(tmp_path)) == 8
    write_tar(tmp_path / "all.tar", tmp_path)
    assert len(opened(tmp_path / "all.tar")) == 8
    assert known.get_img_extensions() == (".png", ".jpg", ".jpeg")  # timm is left as it was


SPLITS: list[tuple[set[str], str | None, str, bool, str | None]] = [
    ({"train", "test"}, None, "pretrain", True, "train"),
    ({"train", "test"}, None, "train", True, "train"),
    ({"train", "test"}, None, "test", False, "test"),
    ({"train", "test", "val"}, None, "test", False, "test"),
    ({"training", "validation"}, None, "test", False, "validation"),
    ({"training", "validation"}, None, "train", True, "training"),
    ({"train"}, None, "train", True, "train"),
    ({"train", "car", "plane"}, None, "train", True, None),  # a class called train
    ({"nested", "train"}, None, "train", True, None),
    ({"train", "extra"}, None, "train", True, "train"),  # `extra` makes it nested, see below
    ({"cat", "dog"}, None, "train", True, None),
    ({"cat", "dog"}, None, "test", True, None),  # a folder of its own for testing
    ({"train", "val"}, "val", "train", True, "val"),
    ({"train", "validation"}, "val", "train", True, "validation"),
    ({"train", "test", "unlabeled"}, "unlabeled", "pretrain", True, "unlabeled"),
]


@pytest.mark.parametrize(("tops", "split", "purpose", "own", "expected"), SPLITS)
def test_a_split_is_taken_where_it_is_one(tops: set[str], split: str | None, purpose: Any, own: bool, expected: str | None) -> None:
    assert choose_split("there", tops, split, purpose, own, lambda name: "extra" in tops) == expected


@pytest.mark.parametrize(
    ("tops", "split", "purpose"), [({"cat"}, "val", "train"), ({"train", "test"}, "val", "test"), (set(), "x", "train")]
)
def test_a_split_that_is_not_there_is_an_error(tops: set[str], split: str, purpose: Any) -> None:
    with pytest.raises(UsageError, match=f"has no subfolder '{split}'"):
        choose_split("there", tops, split, purpose, True, lambda name: False)


@pytest.mark.parametrize("kind", ["folder", "tar", "tar with a top folder"])
def test_training_and_testing_take_their_own_images(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "data"
    write_classes(root / "train", {"cat": 3, "dog": 4})
    write_classes(root / "test", {"cat": 1, "dog": 2}, first=50)
    data = root if kind == "folder" else write_tar(tmp_path / "data.tar", root, "" if kind == "tar" else "data/inner/")
    assert [len(source) for source in (opened(data), for_training(data), for_testing(data))] == [7, 7, 3]
    assert for_training(data).classes == for_testing(data).classes == ("cat", "dog")
    assert len(opened(data, split="test")) == 3
    wanted = [np.asarray(Image.open(root / "test" / name)) for name in ("cat/000.png", "dog/000.png", "dog/001.png")]
    found = for_testing(data)
    assert all(np.array_equal(array(found[index][0]), wanted[index]) for index in range(3))
    assert [found[index][1] for index in range(3)] == [0, 1, 1]


def test_without_a_test_folder_testing_is_refused_and_test_data_is_the_way(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "all", {"cat": 2, "dog": 2})
    with pytest.raises(UsageError, match=r"no test or val subfolder.*--test-data"):
        for_testing(root)
    assert len(for_testing(root, test_data=str(write_classes(tmp_path / "own", {"cat": 1, "dog": 1})))) == 2


def test_a_tar_gives_what_its_folder_gives(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 3, "dog": 2})
    folder, tar = opened(root), opened(write_tar(tmp_path / "data.tar", root))
    assert tar.classes == folder.classes
    assert [tar.name(index) for index in range(5)] == [folder.name(index) for index in range(5)]
    for index in range(5):
        assert torch.equal(tar[index][0], folder[index][0])
        assert tar[index][1] == folder[index][1]
    flat = opened(write_tar(tmp_path / "flat.tar", write_flat(tmp_path / "flat", 3)))
    assert (len(flat), flat.classes) == (3, ())


def test_tars_inside_a_tar_are_classes(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 3, "dog": 2})
    (tmp_path / "tars").mkdir()
    for name in ("cat", "dog"):
        write_tar(tmp_path / "tars" / f"{name}.tar", root / name)
    source = for_training(write_tar(tmp_path / "all.tar", tmp_path / "tars"))
    assert source.classes == ("cat", "dog")
    wanted = {source.classes.index(file.parent.name): set[bytes]() for file in root.rglob("*.png")}
    for file in root.rglob("*.png"):
        wanted[source.classes.index(file.parent.name)].add(np.asarray(Image.open(file)).tobytes())
    found = {label: {array(image).tobytes() for image, one in (source[n] for n in range(5)) if one == label} for label in (0, 1)}
    assert found == wanted
    assert len({source.name(index) for index in range(5)}) == 5


class Sums(torch.utils.data.Dataset[int]):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> int:
        return int(self.source[index][0].sum())


def test_a_tar_that_is_open_already_is_read_right_by_workers_threads_and_copies(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 20, "dog": 20})
    source = opened(write_tar(tmp_path / "data.tar", root))
    sums = [int(source[index][0].sum()) for index in range(40)]  # opens the tar
    loader = DataLoader(Sums(source), batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert [int(one) for one in loader] == sums
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda index: int(source[index][0].sum()), range(40))) == sums
    copy = pickle.loads(pickle.dumps(source))
    assert [int(copy[index][0].sum()) for index in range(40)] == sums


def test_images_beside_class_folders_are_no_class(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 2, "dog": 2})
    picture(9).save(root / "loose.png")
    assert (len(opened(root)), opened(root).classes) == (5, ())
    with pytest.raises(UsageError, match="1 images are next to the class folders"):
        for_training(root)


def test_test_images_are_numbered_as_the_training_images_are(tmp_path: Path) -> None:
    write_classes(tmp_path / "train", {"ant": 2, "bee": 2, "cat": 2})
    write_classes(tmp_path / "test", {"bee": 1, "cat": 2}, first=40)
    train = for_training(tmp_path)
    test = for_testing(tmp_path, train.classes)
    assert test.classes == train.classes
    assert [test[index][1] for index in range(3)] == [1, 2, 2] == list(test.labels())
    write_classes(tmp_path / "test", {"dodo": 1}, first=60)
    with pytest.raises(UsageError, match=r"\['dodo'\], which the training images do not have"):
        for_testing(tmp_path, train.classes)


# modes


def modes() -> dict[str, tuple[Image.Image, str, tuple[int, int, int], int]]:
    """Picture, ending, and the colour and grey that its first pixel has."""
    grey16 = Image.fromarray(np.full((3, 4), 200 * 257, dtype=np.uint16))
    palette = Image.new("P", (4, 3), 0)
    palette.putpalette([10, 20, 30, 255, 255, 255])
    keyed, keyed_grey = Image.new("RGB", (4, 3), (10, 20, 30)), Image.new("L", (4, 3), 77)
    keyed.info["transparency"], keyed_grey.info["transparency"] = (10, 20, 30), 77
    return {
        "RGB with a transparent colour": (keyed, "png", (255, 255, 255), 255),
        "L with a transparent grey": (keyed_grey, "png", (255, 255, 255), 255),
        "RGB": (Image.new("RGB", (4, 3), (10, 20, 30)), "png", (10, 20, 30), 18),
        "L": (Image.new("L", (4, 3), 77), "png", (77, 77, 77), 77),
        "LA": (Image.new("LA", (4, 3), (77, 0)), "png", (255, 255, 255), 255),
        "RGBA": (Image.new("RGBA", (4, 3), (10, 20, 30, 0)), "png", (255, 255, 255), 255),
        "opaque RGBA": (Image.new("RGBA", (4, 3), (10, 20, 30, 255)), "png", (10, 20, 30), 18),
        "1": (Image.new("1", (4, 3), 1), "png", (255, 255, 255), 255),
        "P": (palette, "png", (10, 20, 30), 18),
        "I;16": (grey16, "png", (200, 200, 200), 200),
        "I;16 tif": (grey16, "tif", (200, 200, 200), 200),
        "CMYK": (Image.new("CMYK", (4, 3), (0, 0, 0, 155)), "tif", (100, 100, 100), 100),
    }


@pytest.mark.parametrize(("low", "high"), [(0, 255), (0, 100_000), (-1000, 3000)])
def test_tiffs_of_whole_numbers_without_a_range_go_from_the_darkest_to_the_brightest(tmp_path: Path, low: int, high: int) -> None:
    values = np.linspace(low, high, 12).round().astype(np.int32).reshape(3, 4)
    for name in ("a.tif", "b.tif"):
        Image.fromarray(values).save(tmp_path / name)
    found = opened(tmp_path, in_chans=1)[0][0]
    wanted = np.round((values - low) * (255 / (high - low)))
    assert found[0].tolist() == wanted.tolist()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", list(modes()))
def test_every_mode_of_a_file_becomes_grey_or_colour(tmp_path: Path, mode: str, channels: int) -> None:
    image, ending, colour, grey = modes()[mode]
    image.save(tmp_path / f"a.{ending}")
    image.save(tmp_path / f"b.{ending}")
    found = opened(tmp_path, in_chans=channels)[0][0]
    assert found.shape == (channels, 3, 4)
    assert found[:, 0, 0].tolist() == ([grey] if channels == 1 else list(colour))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_stand_upright(tmp_path: Path, orientation: int) -> None:
    upright = pixels(3, 20, 32)
    turned = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name in ("a", "b"):
        Image.fromarray(np.ascontiguousarray(turned)).save(tmp_path / f"{name}.png", exif=exif)
    assert np.array_equal(array(opened(tmp_path)[0][0]), upright)


# broken images


def test_a_broken_image_is_named_and_the_next_one_stands_in(tmp_path: Path) -> None:
    root = write_flat(tmp_path / "data", 6)
    whole = [opened(root)[index][0] for index in range(6)]
    truncate(root / "002.png")
    (root / "003.png").write_bytes(b"no image at all")
    truncate(root / "005.png")
    for _ in range(2):
        source = opened(root)
        found = [source[index][0] for index in range(6)]
        assert all(torch.equal(found[index], whole[stand_in]) for index, stand_in in enumerate([0, 1, 4, 4, 4, 0]))
        assert set(source.broken) == {"002.png", "003.png", "005.png"}
        assert "not an image" in source.broken["003.png"]
        assert "truncated" in source.broken["002.png"]


def test_a_broken_image_lends_its_place_and_not_its_label(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 1, "dog": 2})
    truncate(root / "cat" / "000.png")
    source = for_training(root)
    assert source[0][1] == 1
    assert source.read(0) is None


def test_a_file_that_vanishes_is_broken_too(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 3)
    source = opened(root)
    (root / "001.png").unlink()
    assert torch.equal(source[1][0], source[2][0])
    assert source.broken == {"001.png": "there is no such file or folder"}


def test_a_data_set_without_one_readable_image_is_refused_at_once(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 3)
    for file in root.iterdir():
        truncate(file)
    with pytest.raises(UsageError, match=r"none of the 3 images could be read. The first was 000.png: damaged"):
        opened(root)


def test_an_image_too_large_to_be_decoded_safely_is_named(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 2)
    Image.new("1", (9500, 9500)).save(root / "000.png")
    source = opened(root)
    assert torch.equal(source[0][0], source[1][0])
    assert "too large to be decoded safely" in source.broken["000.png"]


def test_a_name_that_no_disk_can_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="could not be read"):
        opened(tmp_path / ("x" * 5000))


def test_images_that_break_later_end_in_the_same_words(tmp_path: Path) -> None:
    root = write_flat(tmp_path, 3)
    source = opened(root)
    for file in root.iterdir():
        truncate(file)
    with pytest.raises(UsageError, match="none of the 3 images"):
        source[0]


@pytest.mark.parametrize("threads", [1, 4])
def test_every_image_is_visited_once_in_order(tmp_path: Path, threads: int) -> None:
    root = write_flat(tmp_path, 7)
    truncate(root / "004.png")
    source = opened(root)
    told: list[tuple[int, int]] = []
    found = list(each(source, lambda image, label: int(image.sum()), threads, lambda done, of: told.append((done, of))))
    assert found == [None if index == 4 else int(source[index][0].sum()) for index in range(7)]
    assert told[-1] == (7, 7)


# labels.csv


def test_a_csv_gives_several_labels_and_ignores_text(tmp_path: Path) -> None:
    write_labels(tmp_path, {"train": 6, "test": 3})
    train = for_training(tmp_path)
    assert (train.classes, train.multi_label, len(train)) == (("sea", "sky"), True, 6)
    for index in range(6):
        image, label = train[index]
        assert isinstance(label, Tensor)
        assert label.dtype == torch.float32
        assert label.tolist() == [index & 1, index >> 1 & 1]
        assert np.array_equal(array(image), pixels(index))
    test = for_testing(tmp_path, train.classes)
    assert [test.name(index) for index in range(3)] == ["test/006.png", "test/007.png", "test/008.png"]
    assert len(for_training(tmp_path, multi_label=True)) == 6
    assert opened(tmp_path).classes == ()  # pretraining asks for no labels


@pytest.mark.parametrize("inside", ["train", "."])
def test_the_csv_may_lie_above_its_split_or_elsewhere(tmp_path: Path, inside: str) -> None:
    table = write_labels(tmp_path / "data", {"train": 4})
    assert len(for_training(tmp_path / "data" / inside)) == 4
    assert len(for_training(tmp_path / "data" / inside, labels=str(table))) == 4


def test_false_takes_the_folders_for_classes_though_a_csv_is_there(tmp_path: Path) -> None:
    write_classes(tmp_path, {"cat": 2, "dog": 2})
    (tmp_path / "labels.csv").write_text("name,colour\nrex,brown\n")
    assert for_training(tmp_path, multi_label=False).classes == ("cat", "dog")
    with pytest.raises(UsageError, match="the first column, 'name', does not hold files"):
        for_training(tmp_path)


def test_columns_come_in_the_order_of_training(tmp_path: Path) -> None:
    write_labels(tmp_path / "a", {"train": 4})
    write_labels(tmp_path / "b", {"test": 4}, columns=("sky", "sea"))
    train = for_training(tmp_path / "a")
    test = for_testing(tmp_path / "a", train.classes, test_data=str(tmp_path / "b"))
    assert [one.tolist() for one in test.labels() if isinstance(one, Tensor)] == [[n >> 1 & 1, n & 1] for n in range(4)]
    write_labels(tmp_path / "c", {"test": 4}, columns=("sky",))
    with pytest.raises(UsageError, match=r"no column for \['sea'\]"):
        for_testing(tmp_path / "a", train.classes, test_data=str(tmp_path / "c"))


CSVS = {
    "": "holds no images",
    "file,sea\n": "holds no images",
    "file\ntrain/000.png\ntrain/001.png\n": "has no labels",
    "file,text\ntrain/000.png,a\ntrain/001.png,b\n": "has no labels",
    "id,sea\n0,1\n1,0\n": "the first column, 'id', does not hold files",
    "file,sea\ntrain/000.png,1\ntrain/gone.png,0\n": r"lists 1 files that do not exist, the first in line 3: train/gone.png",
    "file,sea\ntrain/000.png,1\ntrain/001.png,0\ntrain/002.png,2\n": r"line 4: the label 'sea' is '2'. Allowed: 0 or 1",
    "file,sea\ntrain/000.png,1\ntrain/001.png\n": r"line 3, has 1 columns, but the first line has 2",
    "file,sea\ntrain/000.png,1\ntrain/./000.png,0\n": "twice",
    "file,sea\ntest/000.png,1\n": "none of them in",
    'file,sea\n"train/000.png,1\n': "could not be read as a CSV",
}


@pytest.mark.parametrize("text", list(CSVS))
def test_a_csv_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    write_labels(tmp_path, {"train": 3, "test": 1})
    picture(0).save(tmp_path / "test" / "000.png")
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(UsageError, match=CSVS[text]):
        for_training(tmp_path)


def test_a_csv_may_have_a_byte_order_mark_and_blanks(tmp_path: Path) -> None:
    write_flat(tmp_path, 2)
    (tmp_path / "labels.csv").write_bytes("\ufefffile, sea \r\n000.png, 1\r\n\r\n001.png,0.0\r\n".encode())
    found = read_labels(tmp_path / "labels.csv", tmp_path)
    assert (found.classes, found.labels.tolist()) == (("sea",), [[1.0], [0.0]])
    (tmp_path / "labels.csv").write_text("file,sea\n000.png,TRUE\n001.png,False\n")
    assert read_labels(tmp_path / "labels.csv", tmp_path).labels.tolist() == [[1.0], [0.0]]
    (tmp_path / "labels.csv").write_bytes("file,sé\n".encode("latin-1"))
    with pytest.raises(UsageError, match="UTF-8"):
        for_training(tmp_path)


def test_a_csv_that_was_asked_for_must_be_there(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 2})
    with pytest.raises(UsageError, match=r"there is no .*labels.csv. Give --labels"):
        for_training(root, multi_label=True)
    with pytest.raises(UsageError, match=r"there is no .*mine.csv"):
        for_training(root, labels=str(tmp_path / "mine.csv"))
    with pytest.raises(UsageError, match="Unpack it first"):
        for_training(write_tar(tmp_path / "a.tar", root), multi_label=True)


# data sets in Python


class Listed:
    """A data set from a function of the number."""

    def __init__(self, count: int, item: Callable[[int], Any], **attributes: Any) -> None:
        self.count, self.item = count, item
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.item(index)


def python(dataset: Any, **options: Any) -> Source:
    source = open_source(PretrainConfig(**options), dataset=dataset)
    assert isinstance(source, Source)
    return source


def python_trained(dataset: Any, **options: Any) -> Source:
    return open_source(FinetuneConfig(**options), purpose="train", dataset=dataset)


ITEMS: dict[str, Callable[[int], Any]] = {
    "picture": picture,
    "array": pixels,
    "channels first": lambda n: pixels(n).transpose(2, 0, 1),
    "tensor": lambda n: torch.from_numpy(pixels(n)).permute(2, 0, 1),
    "tensor with channels last": lambda n: torch.from_numpy(pixels(n)),
    "floats": lambda n: torch.from_numpy(pixels(n)).permute(2, 0, 1) / 255,
    "doubles": lambda n: pixels(n) / 255.0,
    "16 bits": lambda n: pixels(n).astype(np.uint16) * 257,
    "int64": lambda n: torch.from_numpy(pixels(n)).permute(2, 0, 1).long(),
    "negative strides": lambda n: pixels(n)[::-1][::-1],
    "tuple": lambda n: (picture(n), n % 2),
    "list": lambda n: [picture(n), n % 2, "more"],
    "dict": lambda n: {"image": picture(n), "label": n % 2},
    "dict of another kind": lambda n: {"img": pixels(n), "labels": n % 2, "id": n},
}


@pytest.mark.parametrize("kind", list(ITEMS))
def test_a_data_set_in_python_may_hold_images_in_any_form(kind: str) -> None:
    source = python(Listed(4, ITEMS[kind]))
    assert len(source) == 4
    assert np.array_equal(array(source[3][0]), pixels(3))
    assert source[3][1] is None
    assert source.broken == {}


@pytest.mark.parametrize(("channels", "item"), [(5, (8, 9, 5)), (2, (8, 9, 2)), (1, (8, 9)), (1, (8, 9, 1))])
def test_other_channels_come_from_arrays(channels: int, item: tuple[int, ...]) -> None:
    source = python(Listed(3, lambda n: np.full(item, n, dtype=np.uint8)), in_chans=channels)
    assert source[2][0].shape == (channels, 8, 9)
    assert (source[2][0] == 2).all()


def test_floats_are_rounded_to_the_nearest_level() -> None:
    source = python(Listed(2, lambda n: np.full((4, 4), (100 + (0.4, 0.6)[n]) / 255, dtype=np.float32)), in_chans=1)
    assert (int(source[0][0][0, 0, 0]), int(source[1][0][0, 0, 0])) == (100, 101)


def test_grey_and_colour_arrays_become_each_other() -> None:
    colour = python(Listed(2, lambda n: np.full((8, 9), 7, dtype=np.uint8)))[0][0]
    assert colour.shape == (3, 8, 9)
    grey = python(Listed(2, pixels), in_chans=1)[1][0]
    assert np.array_equal(grey[0].numpy(), np.asarray(picture(1).convert("L")))


WRONG: dict[str, tuple[Callable[[int], Any], int, str]] = {
    "normalised": (lambda n: torch.randn(3, 8, 8), 3, r"floats from -.*before images are normalised"),
    "levels as floats": (lambda n: torch.full((3, 8, 8), 200.0), 3, r"floats from 200 to 200"),
    "not finite": (lambda n: torch.full((3, 8, 8), torch.nan), 3, "floats from nan"),
    "large integers": (lambda n: torch.full((3, 8, 8), 1000), 3, "integers from 1000"),
    "complex": (lambda n: torch.zeros(3, 8, 8, dtype=torch.complex64), 3, "complex"),
    "four channels": (lambda n: torch.zeros(4, 8, 8, dtype=torch.uint8), 3, "4 channels.*in_chans is 3"),
    "colour for five": (picture, 5, "1 or 3 channels, but in_chans is 5"),
    "a batch": (lambda n: torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 3, r"its shape is \(2, 3, 8, 8\)"),
    "empty": (lambda n: torch.zeros(3, 0, 8, dtype=torch.uint8), 3, "its shape"),
    "text": (lambda n: "cat.png", 3, "it is a str"),
    "a strange dict": (lambda n: {"x": 1}, 3, r"its keys are \['x'\]"),
    "nothing": (lambda n: None, 3, "it is a NoneType"),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_what_is_no_image_is_refused_before_any_work(kind: str) -> None:
    item, channels, words = WRONG[kind]
    with pytest.raises(UsageError, match=f"none of the 3 images could be read. The first was image 0: .*{words}"):
        python(Listed(3, item), in_chans=channels)


def test_a_data_set_that_fails_here_and_there_is_stepped_over() -> None:
    def item(number: int) -> Any:
        if number == 1:
            raise KeyError("no such row")
        return picture(number)

    source = python(Listed(3, item))
    assert torch.equal(source[1][0], source[2][0])
    assert "no such row" in source.broken["image 1"]


LABELS: dict[str, tuple[Callable[[int], Any], list[Any], tuple[str, ...], dict[str, Any]]] = {
    "numbers": (lambda n: n % 3, [0, 1, 2, 0], ("0", "1", "2"), {}),
    "numpy": (lambda n: np.int64(n % 3), [0, 1, 2, 0], ("0", "1", "2"), {}),
    "tensors": (lambda n: torch.tensor(n % 3), [0, 1, 2, 0], ("0", "1", "2"), {}),
    "named": (lambda n: n % 2, [0, 1, 0, 1], ("cat", "dog", "emu"), {"classes": ["cat", "dog", "emu"]}),
    "words": (lambda n: "dog" if n % 2 else "cat", [0, 1, 0, 1], ("cat", "dog"), {}),
    "listed": (lambda n: None, [2, 1, 0, 1], ("0", "1", "2"), {"targets": [2, 1, 0, 1]}),
    "changed": (lambda n: None, [0, 1, 2, 1], ("0", "1", "2"), {"targets": [2, 1, 0, 1], "target_transform": lambda one: 2 - one}),
    "several": (lambda n: [n & 1, n >> 1], [[0, 0], [1, 0], [0, 1], [1, 1]], ("0", "1"), {}),
    "several as a tensor": (lambda n: torch.tensor([n & 1, 1.0]), [[0, 1], [1, 1], [0, 1], [1, 1]], ("a", "b"), {"classes": "ab"}),
}


@pytest.mark.parametrize("kind", list(LABELS))
def test_labels_in_python_are_numbered(kind: str) -> None:
    label, expected, classes, attributes = LABELS[kind]
    source = python_trained(Listed(4, lambda n: (picture(n), label(n)), **attributes))
    assert source.classes == classes
    assert source.multi_label == isinstance(expected[0], list)
    found = [source[index][1] for index in range(4)]
    assert [one.tolist() if isinstance(one, Tensor) else one for one in found] == expected
    assert all(isinstance(one, int) or (isinstance(one, Tensor) and one.dtype == torch.float32) for one in found)


BAD_LABELS: dict[str, tuple[Callable[[int], Any], str]] = {
    "none": (lambda n: None, "labels are needed, but the data set has none"),
    "none later": (lambda n: n if n < 2 else None, "image 2 of the data set has the label None"),
    "below zero": (lambda n: n - 1, "image 0 of the data set has the label -1"),
    "halves": (lambda n: n + 0.5, "the label 0.5"),
    "one class": (lambda n: 0, "only one class, '0'"),
    "a number beside a word": (lambda n: "cat" if n else 1, "the label 'cat'"),
    "vectors of other lengths": (lambda n: [1] * (n + 1), r"image 1 of the data set has the labels \[1, 1\]"),
    "not 0 or 1": (lambda n: [0, n], r"labels \[0, 2\]"),
}


@pytest.mark.parametrize("kind", list(BAD_LABELS))
def test_labels_that_do_not_fit_are_refused(kind: str) -> None:
    label, words = BAD_LABELS[kind]
    with pytest.raises(UsageError, match=words):
        python_trained(Listed(4, lambda n: (picture(n), label(n))))


def test_torchvisions_data_sets_are_read_by_name_and_in_python(tmp_path: Path) -> None:
    from torchvision.datasets import ImageFolder

    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 3})
    named = open_source(FinetuneConfig(data="torch/folder", data_root=str(root)), purpose="train")
    own = python_trained(ImageFolder(str(root)))
    for source in (named, own):
        assert (source.classes, len(source)) == (("cat", "dog"), 5)
        assert [source[index][1] for index in range(5)] == [0, 0, 1, 1, 1]
    with pytest.raises(UsageError, match="torch/mnist could not be opened"):
        opened("torch/mnist", data_root=str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match=r"torch/nonsense could not be opened.*Unknown"):
        opened("torch/nonsense", data_root=str(tmp_path))
    with pytest.raises(UsageError, match="--data-root"):
        opened("torch/cifar10")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The library of Hugging Face, without network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    return datasets


def test_a_folder_of_a_hugging_face_data_set_is_read_by_name(tmp_path: Path, hub: Any) -> None:
    write_classes(tmp_path / "data" / "train", {"cat": 2, "dog": 3})
    write_classes(tmp_path / "data" / "test", {"cat": 1, "dog": 1}, first=30)
    config = FinetuneConfig(data=f"hfds/{tmp_path / 'data'}", data_root=str(tmp_path / "cache"))
    train, test = open_source(config, purpose="train"), open_source(config, purpose="test")
    assert (train.classes, len(train), len(test)) == (("cat", "dog"), 5, 2)
    assert Counter(label for label in train.labels() if isinstance(label, int)) == {0: 2, 1: 3}
    wanted = {file.read_bytes(): file.parent.name for file in (tmp_path / "data" / "train").rglob("*.png")}
    sums = {int(decode(held, 3).sum()): train.classes.index(name) for held, name in wanted.items()}
    assert {int(train[index][0].sum()): train[index][1] for index in range(5)} == sums
    with pytest.raises(UsageError, match="could not be opened"):
        open_source(
            FinetuneConfig(data=f"hfds/{tmp_path / 'data'}", split="nonsense", data_root=str(tmp_path / "cache")), purpose="train"
        )


def test_features_say_which_column_is_what(hub: Any) -> None:
    names = hub.ClassLabel(names=["cat", "dog", "emu"])
    images = [picture(number) for number in range(4)]
    features = hub.Features({"label": hub.Value("string"), "picture_of": hub.Image(), "animal": names})
    rows = {"label": ["x"] * 4, "picture_of": images, "animal": [0, 2, 1, 0]}
    source = python_trained(hub.Dataset.from_dict(rows, features))
    assert source.classes == ("cat", "dog", "emu")
    assert [source[index][1] for index in range(4)] == [0, 2, 1, 0]
    assert np.array_equal(array(source[1][0]), pixels(1))
    several = hub.Features({"image": hub.Image(), "labels": hub.Sequence(names)})
    source = python_trained(hub.Dataset.from_dict({"image": images, "labels": [[0], [0, 1], [], [2]]}, several))
    assert source.multi_label
    assert [one.tolist() for one in source.labels() if isinstance(one, Tensor)] == [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("data", "library"), [("hfds/org/name", "datasets"), ("hfids/org/name", "datasets"), ("wds/shards", "webdataset")]
)
def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, data: str, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    with pytest.raises(UsageError, match=f"pip install {library}"):
        opened(data)


# refusals


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("words")
    (tmp_path / "file.rar").write_bytes(b"PK")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 500)
    write_tar(tmp_path / "text.tar", tmp_path / "text")
    write_flat(tmp_path / "one", 1)
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "a.tar", tmp_path / "one")
    refusals = {
        "nowhere": "there is no .*nowhere",
        "empty": "holds no images. Known endings: .png",
        "text": "holds no images",
        "file.rar": "but not an archive",
        "bad.tar": "holds no images, or is damaged",
        "text.tar": "holds no images",
        "one": "holds only one image",
        "tars": "holds tars.*wds/",
    }
    for name, words in refusals.items():
        with pytest.raises(UsageError, match=words):
            opened(tmp_path / name)
    with pytest.raises(UsageError, match="no data was given"):
        opened("")
    with pytest.raises(UsageError, match="image files have 1 or 3 channels, but in_chans is 4"):
        opened(tmp_path / "one", in_chans=4)
    with pytest.raises(UsageError, match="only one class, 'cat'"):
        for_training(write_classes(tmp_path / "cats", {"cat": 3}))
    with pytest.raises(UsageError, match="tfds is not supported"):
        opened("tfds/mnist")
    with pytest.raises(UsageError, match="holds no images"):
        python(Listed(0, picture))
    with pytest.raises(UsageError, match="only one image"):
        python(Listed(1, picture))


def test_a_folder_that_is_called_like_a_kind_of_name_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_flat(tmp_path / "torch" / "mine", 2)
    monkeypatch.chdir(tmp_path)
    assert len(opened("torch/mine")) == 2


# few-shot choices


class Classes(Source):
    """Labels alone; its images are one pixel of their number."""

    def __init__(self, held: Sequence[Label], count: int, multi_label: bool = False) -> None:
        super().__init__(channels=1, classes=tuple(map(str, range(count))), multi_label=multi_label)
        self.held = held

    def __len__(self) -> int:
        return len(self.held)

    def name(self, index: int) -> str:
        return f"number {index}"

    def labels(self) -> Sequence[Label]:
        return self.held

    def item(self, index: int) -> tuple[Tensor, Label]:
        return torch.full((1, 1, 1), index % 256, dtype=torch.uint8), self.held[index]


shares = st.floats(0.001, 1.0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), shares, shares, st.integers(0, 2**40))
def test_a_few_of_each_class_are_chosen_and_fewer_are_among_more(labels: list[int], one: float, other: float, seed: int) -> None:
    source = Classes(labels, 6)
    few, more = (few_shot(source, share, seed) for share in sorted((one, other)))
    whole, chosen = Counter(labels), Counter(few.labels())
    assert chosen == {name: max(1, round(min(one, other) * count)) for name, count in whole.items()}
    names = {few.name(index) for index in range(len(few))}
    assert names <= {more.name(index) for index in range(len(more))}
    assert names == {again.name(index) for again in [few_shot(source, min(one, other), seed)] for index in range(len(again))}
    assert all(few[index][1] == few.labels()[index] for index in range(len(few)))


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=60), shares, shares)
def test_with_several_labels_every_label_keeps_its_share(rows: list[list[bool]], one: float, other: float) -> None:
    source = Classes([torch.tensor(row, dtype=torch.float32) for row in rows], 3, multi_label=True)
    few, more = (few_shot(source, share, 7) for share in sorted((one, other)))
    for label in range(3):
        held = sum(row[label] for row in rows)
        kept = sum(bool(chosen[label]) for chosen in few.labels() if isinstance(chosen, Tensor))
        assert min(held, max(1, round(min(one, other) * held))) <= kept <= held
    assert {few.name(index) for index in range(len(few))} <= {more.name(index) for index in range(len(more))}


def test_another_seed_chooses_other_images_and_all_is_all() -> None:
    source = Classes([number % 4 for number in range(400)], 4)
    chosen = [{few_shot(source, 0.1, seed).name(index) for index in range(40)} for seed in range(3)]
    assert len(set.union(*chosen)) > 90
    assert few_shot(source, 1.0, 0) is source
    for share in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(UsageError, match="few_shot"):
            few_shot(source, share, 0)
    with pytest.raises(UsageError, match="have no labels"):
        few_shot(Subset(Classes([None, None], 0), [0, 1]), 0.5, 0)


def test_a_chosen_image_that_is_broken_is_replaced_by_a_chosen_one(tmp_path: Path) -> None:
    root = write_classes(tmp_path, {"cat": 10, "dog": 10})
    few = few_shot(for_training(root), 0.3, 0)
    truncate(root / few.name(2))
    assert torch.equal(few[2][0], few[3][0])
    assert list(few.broken) == [few.name(2)]


def test_pictures_and_tensors_are_each_others_inverse() -> None:
    for channels in (1, 3):
        image = decode(pixels(1, channels=channels), channels)
        assert torch.equal(decode(to_picture(image), channels), image)
