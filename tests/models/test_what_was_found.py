"""What a folder holds is told: how many images, which classes, what was left out and why; nothing is dropped without a word."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from gmml_models.cli.stats import Stats
from gmml_models.data import image_files
from gmml_models.data.config import DataConfig
from gmml_models.data.dataset import Source
from gmml_models.data.labels_csv import read_labels
from gmml_models.data.scan import natural, scan
from gmml_models.data.sources import open_source
from gmml_models.errors import UsageError, shown
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from gmml_models.recipes.next_command import after_pretraining
from tests.models.command_line import call
from tests.models.data_files import Array, picture, pixels, png, write_classes, write_flat, write_labels, write_tar


def opened(data: Path, **options: Any) -> Source:
    source = open_source(PretrainConfig(data=str(data), **options))
    assert isinstance(source, Source)
    return source


def for_training(data: Path, **options: Any) -> Source:
    return open_source(FinetuneConfig(data=str(data), **options), purpose="train")


def left_out(source: Source) -> dict[str, tuple[str, bool]]:
    return {one.name: (one.reason, one.lost) for one in source.left}


# files


def test_a_folder_of_all_kinds_of_files_is_read_with_this_table_of_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heif = {".heic", ".heif", ".hif", ".heics", ".heifs"}
    endings = image_files.endings_of_pillow() - {*heif, ".avif"}  # as with an older Pillow, without pillow-heif
    monkeypatch.setattr("gmml_models.data.scan.endings_of_pillow", lambda: endings)
    images = ["a.png", "b.PNG", "c.jpg", "d.JPG", "e.jpeg", "f.jpe", "g.jfif", "h.bmp", "i.gif", "j.tif", "k.tiff", "l.webp"]
    images += ["m.ppm", "n.pgm", "o.tga", "p.jp2", "q.mpo", "deep/er/r.jpg", "with blank.png", "ünïcode.png", "12²3.png"]
    images += ["x\x1b[2J.png", "new\nline.png"]
    for number, name in enumerate(images):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(tmp_path / name, "JPEG" if name.endswith((".jpe", ".jfif", ".mpo")) else None)
    modes = {
        "s.png": "1",
        "t.png": "L",
        "u.png": "LA",
        "v.png": "P",
        "w.png": "RGBA",
        "x.png": "I;16",
        "y.jpg": "CMYK",
        "z.tif": "F",
    }
    for number, (name, mode) in enumerate(modes.items()):
        shades = np.asarray(picture(number).convert("L"))
        deep = Image.fromarray(shades.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(shades).convert(mode)
        deep.save(tmp_path / name)
        with Image.open(tmp_path / name) as held:
            assert held.mode == mode
    picture(0).save(tmp_path / "moving.gif", save_all=True, append_images=[picture(1)])
    raw = "this format is not supported: convert it to JPEG or PNG"
    apple = "HEIC and HEIF need the package pillow-heif (pip install pillow-heif)"
    table = {
        **dict.fromkeys(("x.HEIC", "x.heif"), (apple, True)),
        "x.avif": ("AVIF needs Pillow 11.3 or pillow-heif (pip install -U pillow)", True),
        **dict.fromkeys(("x.jxl", "x.CR2", "x.nef", "x.arw", "x.dng", "x.psd", "x.svg", "x.eps", "x.dcm"), (raw, True)),
        **{f"x{one}": (f"not an image ({one})", False) for one in (".txt", ".csv", ".json", ".mp4", ".mov", ".zip", ".db", ".pdf")},
        "x.tar.gz": ("not an image (.gz)", False),
        "noending": ("not an image (no extension)", False),
        **dict.fromkeys(("._a.jpg", ".hidden.png", ".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git"), ("hidden", False)),
        "pipe.jpg": ("not a regular file", False),
        "lost.jpg": ("a broken link", True),
        "deep/up": ("a link to a folder that contains it", False),
        "run": ("the folder of a run", False),
    }
    folders = (".ipynb_checkpoints", "__MACOSX", "@eaDir", ".git", "run")
    for name in table.keys() - {*folders, "pipe.jpg", "lost.jpg", "deep/up"}:
        (tmp_path / name).write_bytes(png(0))
    (tmp_path / ".DS_Store").write_bytes(b"what a system wrote, and nobody misses")
    for name in folders:
        write_flat(tmp_path / name / "checkpoints", 2)
    (tmp_path / "run" / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "good.jpg").symlink_to("c.jpg")
    (tmp_path / "deep" / "up").symlink_to("..")
    broken = {
        "empty.jpg": (b"", "not an image, or in a format that is not supported"),
        "page.png": (b"<!doctype html><p>Not found", "not an image, or in a format that is not supported"),
        "half.png": (png(0)[: len(png(0)) // 2], "damaged: "),
        "drawing.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not an image, or in a format that is not supported"),
    }
    for name, (contents, _) in broken.items():
        (tmp_path / name).write_bytes(contents)
    Image.new("1", (20_000, 10_000)).save(tmp_path / "large.png")
    broken["large.png"] = (b"", "more than 89,478,485 pixels, too large to be decoded safely")
    assert len(images) + len(modes) + len(table) + len(broken) + 2 >= 50, "kinds of files"

    source = opened(tmp_path)
    assert left_out(source) == table
    assert source.lost == 13
    readable = {*images, *modes, "good.jpg", "moving.gif"}
    assert sorted(source.name(index) for index in range(len(source))) == sorted({*readable, *broken})
    read = {source.name(index) for index in range(len(source)) if source.read(index) is not None}
    assert read == readable
    assert source.broken.keys() == broken.keys()
    assert all(reason.startswith(broken[name][1]) for name, reason in source.broken.items())
    told = "\n".join(source.found("gmml pretrain"))
    assert told.splitlines()[0] == f"gmml pretrain: {len(readable) + len(broken)} images in {tmp_path}, {len(table)} left out"
    assert f"left out: 9, {raw}: x.CR2, x.arw, x.dcm, ..." in told
    assert "left out: 6, hidden: ._a.jpg, .git, .hidden.png, ..." in told


def colours_of(source: Source, index: int) -> Array:
    """(3, H, W) of an image of a folder."""
    found = source.read(index)
    assert found is not None, source.broken
    return np.asarray(found[0])


@pytest.mark.skipif("HEIF" not in image_files.formats_of_pillow(), reason="pillow-heif is not installed")
def test_heic_is_read_where_pillow_heif_is(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6  # a telephone held upright: to be turned by 90 degrees
    for number, name in enumerate(("0.HEIC", "1.heif", "2.hif")):
        picture(number, 64, 48).save(tmp_path / name, "HEIF", quality=95)
    picture(3, 64, 48).save(tmp_path / "3.heic", "HEIF", quality=95, exif=turned.tobytes())
    assert (tmp_path / "0.HEIC").read_bytes()[4:12] == b"ftypheic"
    source = opened(tmp_path)
    assert (len(source), source.left) == (4, ())
    for number in range(3):
        wanted = pixels(number, 64, 48).transpose(2, 0, 1)
        assert np.abs(colours_of(source, number).astype(int) - wanted).mean() < 6
    wanted = np.asarray(picture(3, 64, 48).transpose(Image.Transpose.ROTATE_270)).transpose(2, 0, 1)
    assert np.abs(colours_of(source, 3).astype(int) - wanted).mean() < 6


@pytest.mark.skipif("AVIF" not in image_files.formats_of_pillow(), reason="this Pillow reads no AVIF")
def test_avif_is_read_where_pillow_can(tmp_path: Path) -> None:
    picture(0, 64, 48).save(tmp_path / "0.avif", quality=95)
    picture(1, 64, 48).save(tmp_path / "1.AVIF", quality=95)
    source = opened(tmp_path)
    assert (len(source), source.left) == (2, ())
    for number in range(2):
        assert np.abs(colours_of(source, number).astype(int) - pixels(number, 64, 48).transpose(2, 0, 1)).mean() < 6


def test_links_are_followed_but_not_back(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 2})
    elsewhere = write_flat(tmp_path / "elsewhere", 3)
    (root / "cow").symlink_to(elsewhere)
    (root / "cat" / "all").symlink_to(root)
    (root / "dog" / "above").symlink_to(tmp_path)
    (root / "cat" / "x").symlink_to("../dog/y")
    (root / "dog" / "y").symlink_to("../cat/x")  # these two lead nowhere
    images, left = scan(root)
    assert sorted(file.parent.name for file in images) == ["cat", "cat", "cow", "cow", "cow", "dog", "dog"]
    assert {one.name for one in left if "contains it" in one.reason} == {"cat/all", "dog/above"}


def test_natural_order_takes_every_name() -> None:
    names = ["10", "9", "a2", "a10", "A1", "½", "²", "1²", "٣", ""]
    assert sorted(names, key=natural)[:1] == [""]
    assert sorted(["a10", "a9", "A1"], key=natural) == ["A1", "a9", "a10"]


def test_names_reach_the_terminal_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_flat(tmp_path, 3)
    (tmp_path / "x\x1b[2J\x1b[31mred.jpg").write_text("junk")
    (tmp_path / "y\x1b[2J.heic").write_text("junk")
    (tmp_path / "z\x1b]0;title\x07.txt").write_text("junk")
    assert Stats(data=str(tmp_path)).run() == 1
    printed = capsys.readouterr()
    assert r"x\x1b[2J\x1b[31mred.jpg" in printed.err
    assert all(one.isprintable() or one == "\n" for one in printed.out + printed.err)
    ran = call(capsys, "stats", "--data", str(tmp_path / "no\x1b[2Jwhere"))
    assert (ran.code, "\x1b" in ran.err) == (2, False)
    assert shown("ä\u202e\udcff\n") == "ä\\u202e\\udcff\n"


def test_stats_tell_what_was_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_flat(tmp_path, 3)
    assert Stats(data=str(tmp_path), json=True).run() == 0
    assert capsys.readouterr().err == f"gmml stats: 3 images in {tmp_path}\n"
    (tmp_path / "raw.cr2").write_text("raw")
    assert Stats(data=str(tmp_path), json=True).run() == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["left_out"] == {"raw.cr2": "this format is not supported: convert it to JPEG or PNG"}
    assert printed.err.splitlines() == [
        f"gmml stats: 3 images in {tmp_path}, 1 left out",
        "  left out: 1, this format is not supported: convert it to JPEG or PNG: raw.cr2",
    ]


# the run's own output


@pytest.mark.parametrize("split", [True, False])
def test_what_a_run_writes_is_never_its_data(tmp_path: Path, split: bool) -> None:
    write_flat(tmp_path / "train" if split else tmp_path, 4)
    out = tmp_path / "runs" / "mine"
    before = opened(tmp_path, out=out)
    for run in (out, tmp_path / "runs" / "another"):
        write_flat(run / "pictures", 2)
        (run / "checkpoints").mkdir()
        (run / "config.json").write_text("{}")
    after = opened(tmp_path, out=out)
    assert len(before) == len(after) == 4
    assert before.identity() == after.identity()
    assert len(opened(out / "pictures")) == 2  # where it is asked for by name


# classes


def test_the_class_is_the_outermost_folder_that_differs_and_that_is_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("dog/2021", "dog/2022", "cat/2021", "cat/2022"):
            write_flat(tmp_path / split / name, 1)
    source = for_training(tmp_path)
    assert source.classes == ("cat", "dog")
    assert [source.name(index).split("/")[0] for index in range(4)] == [source.classes[int(one)] for one in labels(source)]
    assert any("at level 1 (cat, dog), not at another (2021, 2022): --class-level" in note for note in source.notes)
    for level, names in ((1, ("cat", "dog")), (2, ("2021", "2022")), (-1, ("2021", "2022"))):
        chosen = for_training(tmp_path, class_level=level)
        assert (chosen.classes, chosen.notes) == (names, ())
    tar = for_training(write_tar(tmp_path.with_suffix(".tar"), tmp_path))
    assert (tar.classes, tar.notes) == (source.classes, source.notes)
    with pytest.raises(UsageError, match="class_level=0"):
        for_training(tmp_path, class_level=0)
    write_flat(tmp_path / "train" / "cow", 1)
    with pytest.raises(UsageError, match=r"images are next to the class folders.*--class-level"):
        for_training(tmp_path, class_level=2)


def labels(source: Source) -> list[int]:
    return [one for one in source.labels() if isinstance(one, int)]


def test_folders_around_the_classes_are_no_classes(tmp_path: Path) -> None:
    write_classes(tmp_path / "train" / "photos" / "all", {"cat": 2, "dog": 2})
    write_classes(tmp_path / "test" / "dog", {"2021": 1, "2022": 1})
    source = for_training(tmp_path)
    assert source.classes == ("cat", "dog")
    test = open_source(EvaluateConfig(data=str(tmp_path)), purpose="test", classes=source.classes)
    assert list(test.labels()) == [1, 1]  # by the names of the training images, not by 2021 and 2022


def test_a_hidden_folder_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_classes(tmp_path / split, {"a": 2, "b": 2, ".ipynb_checkpoints": 2})
    tar = write_tar(tmp_path.with_suffix(".tar"), tmp_path)
    for data in (tmp_path, tar):
        source = for_training(data)
        assert (source.classes, len(source)) == (("a", "b"), 4)
        assert [one.reason for one in source.left] == ["hidden"] * len(source.left)
        assert source.left


@pytest.mark.parametrize(("train", "test"), [("Train", "Test"), ("TRAIN", "Validation"), ("training", "valid")])
def test_splits_are_found_in_any_spelling(tmp_path: Path, train: str, test: str) -> None:
    write_classes(tmp_path / train, {"a": 2, "b": 2})
    write_classes(tmp_path / test, {"a": 1, "b": 1})
    assert len(for_training(tmp_path)) == 4
    assert len(open_source(EvaluateConfig(data=str(tmp_path)), purpose="test")) == 2
    assert len(opened(tmp_path, split=test.lower())) == 2


# labels


@pytest.mark.parametrize(
    "words", [("1", "0"), ("True", "False"), ("TRUE", "false"), ("yes", "No"), ("1", "-1"), ("1", ""), ("1.0", "-1.0")]
)
def test_a_label_may_be_written_so(tmp_path: Path, words: tuple[str, str]) -> None:
    write_flat(tmp_path, 4)
    rows = [f"{number:03d}.png,{number % 2},{words[number > 0]}" for number in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,sea,sun", *rows]))
    found = read_labels(tmp_path / "labels.csv", tmp_path)
    assert found.classes == ("sea", "sun")
    assert found.labels.tolist() == [[0, 1], [1, 0], [0, 0], [1, 0]]
    assert bool(found.notes) == (words[1] in ("-1", "", "-1.0"))


@pytest.mark.parametrize("column", ["1 0 -1 0", "1 0  0", "1 0 maybe 0", "True False  True"])
def test_a_label_of_more_than_two_values_is_refused(tmp_path: Path, column: str) -> None:
    write_flat(tmp_path, 4)
    rows = [f"{number:03d}.png,{word}" for number, word in enumerate(column.split(" "))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,sun", *rows]))
    with pytest.raises(UsageError, match=r"line 4: the label 'sun' is .*--labels-columns"):
        read_labels(tmp_path / "labels.csv", tmp_path)


def test_columns_that_are_no_labels_are_named_and_can_be_chosen(tmp_path: Path) -> None:
    table = write_labels(tmp_path, {"train": 6, "test": 2})
    source = for_training(tmp_path)
    assert source.notes == ("columns that are not labels: licence (it holds 'free, to all'); use --labels-columns to change this",)
    chosen = for_training(tmp_path, labels_columns=("sky",))
    assert chosen.classes == ("sky",)
    assert [one.tolist() for one in chosen.labels() if isinstance(one, Tensor)] == [[number >> 1 & 1] for number in range(6)]
    with pytest.raises(UsageError, match="has no column 'sun'"):
        read_labels(table, tmp_path, ("sun",))
    with pytest.raises(UsageError, match="the label 'licence' is 'free, to all'"):
        read_labels(table, tmp_path, ("licence",))


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize(("column", "words"), [("label", ("dog", "cat")), ("kind", ("dog", "cat")), ("Class", ("1", "0"))])
def test_a_column_may_hold_the_class(tmp_path: Path, separator: str, column: str, words: tuple[str, str]) -> None:
    for split, first in (("train", 0), ("test", 4)):
        write_flat(tmp_path / split, 4, first=first)
    rows = [f"{'train' if number < 4 else 'test'}/{number:03d}.png{separator}{words[number % 2]}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join([f"file{separator}{column}", *rows]), encoding="utf-8-sig")
    source = for_training(tmp_path)
    assert (source.classes, source.multi_label) == (tuple(sorted(words)), False)
    assert list(source.labels()) == [1, 0, 1, 0]
    assert [source[number][1] for number in range(4)] == [1, 0, 1, 0]
    assert source.notes == (
        f"the class is the column {column} of labels.csv; use --labels-columns or --multi-label to change this",
    )
    test = open_source(EvaluateConfig(data=str(tmp_path)), purpose="test", classes=source.classes)
    assert list(test.labels()) == [1, 0, 1, 0]
    before = source.identity()
    (tmp_path / "labels.csv").write_text("\n".join([f"file{separator}{column}", *rows[1:], rows[0]]))
    assert for_training(tmp_path).identity() != before


def test_which_columns_are_labels_and_which_the_class_can_be_said(tmp_path: Path) -> None:
    write_flat(tmp_path, 4)
    rows = [f"{number:03d}.png;{number % 2};{number // 2};{'ab'[number % 2]}" for number in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file;label;sun;kind", *rows]))
    several = for_training(tmp_path)
    assert (several.classes, several.multi_label) == (("label", "sun"), True), "one of several labels is called label"
    kind = for_training(tmp_path, labels_columns=("kind",))
    assert (kind.classes, kind.multi_label, list(kind.labels())) == (("a", "b"), False, [0, 1, 0, 1])
    (tmp_path / "labels.csv").write_text("\n".join(["file;label", *(row[:9] for row in rows)]))
    assert for_training(tmp_path).multi_label is False
    forced = for_training(tmp_path, multi_label=True)
    assert (forced.classes, forced.multi_label) == (("label",), True)
    (tmp_path / "labels.csv").write_text("file;label\n000.png;a\n001.png;\n002.png;b\n003.png;b\n")
    with pytest.raises(UsageError, match="line 3: the class 'label' is empty"):
        for_training(tmp_path)


# images that are held out


def test_a_share_of_each_class_is_held_out_by_its_name(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"a": 20, "b": 5, "c": 2, "d": 1})
    config = FinetuneConfig(data=str(root), holdout=0.2)
    train, test = open_source(config, purpose="train"), open_source(config, purpose="test")
    names = [{source.name(number) for number in range(len(source))} for source in (train, test)]
    assert not names[0] & names[1]
    assert len(names[0] | names[1]) == 28
    assert sorted(name[0] for name in names[1]) == ["a"] * 4 + ["b", "c"], "a fifth of each, one at least, never all"
    assert train.classes == test.classes == ("a", "b", "c", "d")
    assert any("6 of 28 images are held out for testing (--holdout 0.2)" in note for note in train.notes)
    assert open_source(EvaluateConfig(data=str(root), holdout=0.2, seeds=(7,)), purpose="test").labels() == test.labels()
    for number in (50, 51):  # new images move few of the others to the other side
        shutil.copy(root / "a" / "000.png", root / "a" / f"{number:03d}.png")
    again = open_source(config, purpose="test")
    assert len({again.name(number) for number in range(len(again))} & names[1]) >= 5
    with pytest.raises(UsageError, match=r"holdout=1\.0 is not a share"):
        open_source(FinetuneConfig(data=str(root), holdout=1.0), purpose="train")


def test_a_run_measures_on_what_it_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_classes(tmp_path / "data", {"a": 10, "b": 10})
    small = ("--model", "vit_micro_patch8_64", "--img-size", "16", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--cpu")
    first = call(capsys, "pretrain", "--data", root, "--out", tmp_path / "p", "--pictures-every", "0", *small)
    measure, tune = told_commands(first.out)
    assert measure[measure.index("--holdout") + 1] == tune[tune.index("--holdout") + 1] == "0.2"
    measured = call(capsys, *measure, "--out", tmp_path / "e", "--measures", "knn")
    assert measured.code == 0, measured.err
    assert "16 training images" in measured.err
    assert "4 test images" in measured.err
    tuned = call(capsys, *tune, "--epochs", "1")
    assert tuned.code == 0, tuned.err
    again, _ = told_commands(tuned.out)
    last = call(capsys, *again, "--out", tmp_path / "f")
    assert (last.code, "4 test images" in last.err) == (0, True)
    refused = call(capsys, *tune, "--test-data", root, "--out", tmp_path / "g")
    assert (refused.code, "Give only one of them" in refused.err) == (2, True)


def test_images_that_the_table_does_not_name_are_told(tmp_path: Path) -> None:
    write_labels(tmp_path, {"train": 6, "test": 2})
    write_flat(tmp_path / "train", 2, first=90)
    source = for_training(tmp_path)
    assert left_out(source) == dict.fromkeys(("090.png", "091.png"), ("not listed in labels.csv", False))


# numbers and words


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (
            {"mean": (128.0, 128.0, 128.0)},
            r"--mean 128 128 128: pixels are in \[0, 1\].*If these are statistics of bytes, give --mean 0.502 0.502 0.502",
        ),
        ({"std": (64.0, 64.0, 64.0)}, r"--std 64 64 64.*If these are statistics of bytes, give --std 0.251"),
        ({"std": (0.0, 0.5, 0.5)}, r"--std 0 0.5 0.5.*above 0"),
        ({"mean": (-0.5, 0.5, 0.5)}, "See gmml stats"),
        ({"mean": (float("nan"), 0.5, 0.5)}, "See gmml stats"),
    ],
)
def test_mean_and_std_of_another_scale_are_refused(tmp_path: Path, option: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        opened(write_flat(tmp_path, 2), **option)


@pytest.mark.parametrize("command", ["pretrain", "finetune", "evaluate", "embed", "stats"])
def test_images_without_an_option_and_a_folder_that_is_misspelt_are_answered_with_what_to_type(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_flat(tmp_path / "my pictures", 3)
    alone = call(capsys, command, "my pictures", "--workers", "0")
    assert (alone.code, alone.err) == (
        2,
        f"gmml {command}: 'my pictures' was given without an option. To use it as the images, write --data 'my pictures'.\n",
    )
    weights = ("--weights", "gmml_vit_micro_patch8_64.openclipart") if command in ("evaluate", "embed") else ()
    misspelt = call(capsys, command, "--data", "my picture", *weights)
    assert (misspelt.code, misspelt.out) == (2, "")
    assert misspelt.err.startswith("gmml: there is no 'my picture' (there is 'my pictures'). Give a folder or archive of images")


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write_flat(tmp_path / "photos", 3)
    assert PretrainConfig(out=Path("~/x"), data="~/photos").out == tmp_path / "x"
    assert EvaluateConfig(out=Path("~/x"), weights="~/w").weights == str(tmp_path / "w")
    assert DataConfig(data="~/photos").data == str(tmp_path / "photos")
    assert call(capsys, "corrupt", "photos", "-o=~/sheet.png", "--size=32").code == 0
    assert (tmp_path / "sheet.png").is_file()
    assert not (tmp_path / "~").exists()


def test_an_identity_is_names_and_sizes_wherever_they_lie(tmp_path: Path) -> None:
    root = write_classes(tmp_path / "data", {"cat": 2, "dog": 2})
    known = opened(root).identity()
    assert known is not None
    assert known.bytes == sum(file.stat().st_size for file in root.rglob("*.png"))
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    assert opened(moved).identity() == known == opened(Path(f"{moved}/../moved/")).identity()
    Image.new("RGB", (99, 99)).save(moved / "cat" / "000.png")
    assert opened(moved).identity() != known
    shutil.move(root / "cat" / "000.png", root / "cat" / "zzz.png")
    assert opened(root).identity() != known


# the commands that train and measure


def test_images_that_cannot_be_read_are_told_of_training_and_of_test_images_and_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, first in (("train", 0), ("test", 50)):
        write_classes(tmp_path / "data" / split, {"a": 6, "b": 6}, first=first)
    words = ("--data", tmp_path / "data", "--workers", "0", "--batch-size", "4", "--cpu")
    weights = "gmml_vit_micro_patch8_64.openclipart"
    whole = call(capsys, "evaluate", *words, "--weights", weights, "--out", tmp_path / "e", "--measures", "knn", "--k", "2")
    assert (whole.code, whole.err.splitlines()) == (
        0,
        [
            f"gmml evaluate: 12 training images in {tmp_path / 'data' / 'train'}, 2 classes (a, b)",
            f"gmml evaluate: 12 test images in {tmp_path / 'data' / 'test'}, 2 classes (a, b)",
        ],
    )
    for file in (tmp_path / "data" / "test" / "a").iterdir():
        file.write_text("junk")
    ran = call(capsys, "evaluate", *words, "--weights", weights, "--out", tmp_path / "e", "--measures", "knn", "--k", "2")
    assert ran.code == 1
    assert "6 of 12 test images could not be read and are skipped:\n  a/000.png: not an image" in ran.err
    assert "- test images: 6\n" in (tmp_path / "e" / "table.md").read_text()
    assert "- test images that could not be read: 6\n" in (tmp_path / "e" / "table.md").read_text()
    more = ("--model", "vit_micro_patch8_64", "--epochs", "1", "--img-size", "16")
    ran = call(capsys, "finetune", *words, *more, "--out", tmp_path / "f")
    assert ran.code == 1
    assert "12 training images in" in ran.err
    assert "6 of 12 test images could not be read" in ran.err
    (tmp_path / "data" / "train" / "a" / "raw.nef").write_text("raw")
    ran = call(capsys, "pretrain", *words, *more, "--out", tmp_path / "p", "--pictures-every", "0")
    assert ran.code == 1
    assert "12 images in" in ran.err
    assert "left out: 1, this format is not supported: convert it to JPEG or PNG: a/raw.nef" in ran.err


def told_commands(out: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("  gmml ")]


@pytest.mark.parametrize(
    ("several", "method"), [(False, "gmml"), (True, "gmml"), (False, "sit"), (False, "mc_ssl"), (False, "autoencoder")]
)
def test_the_next_commands_run_as_they_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], several: bool, method: str
) -> None:
    data = tmp_path / "a folder"
    if several:
        write_labels(data, {"train": 13, "test": 4})
    else:
        write_classes(data / "train", {"a": 7, "b": 6})
        write_classes(data / "test", {"a": 2, "b": 2}, first=50)
    small = ("--model", "vit_micro_patch8_64", "--img-size", "16", "--epochs", "1", "--batch-size", "4", "--workers", "0", "--cpu")
    method_words = ("--pictures-every", "0", "--method", method, "--classes", "32", "--head-width", "16")
    first = call(capsys, "pretrain", "--data", data, "--out", tmp_path / "p", *small, *method_words)
    assert first.code == 0, first.err
    measure, tune = told_commands(first.out)
    for words in (measure, tune):
        assert tuple(words[words.index("--workers") :][:2]) == ("--workers", "0")
    measured = call(capsys, *measure)
    assert measured.code == 0, measured.err
    tuned = call(capsys, *tune, "--epochs", "1", "--test-every", "1")
    assert tuned.code == 0, tuned.err
    again, tell = told_commands(tuned.out)
    last = call(capsys, *again)
    assert last.code == 0, last.err
    tables = [json.loads((Path(words[words.index("--out") + 1]) / "table.json").read_text()) for words in (measure, again)]
    assert len({table["facts"]["weights"] for table in tables}) == 2, "the second leaves the first alone"
    said = call(capsys, *tell)
    assert said.code == 0, said.err
    assert "17 predictions" in said.out
    (line,) = (one for one in tuned.out.splitlines() if one.startswith("  python -c "))
    _, _, code = shlex.split(line)
    exec(code)
    assert capsys.readouterr().out == f"{('sea', 'sky') if several else ('a', 'b')}\n"


def test_without_test_images_the_next_commands_say_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_classes(tmp_path / "data" / "train", {"a": 4, "b": 4})
    words = ("--data", tmp_path / "data", "--model", "vit_micro_patch8_64", "--img-size", "16", "--epochs", "1", "--cpu")
    ran = call(capsys, "finetune", *words, "--batch-size", "4", "--workers", "0", "--test-every", "0", "--out", tmp_path / "f")
    assert ran.code == 0, ran.err
    assert "Next (with labelled test images: FOLDER/test, or --test-data):" in ran.out
    _, tell = told_commands(ran.out)
    assert call(capsys, *tell).code == 0


def test_without_labels_the_next_commands_say_what_is_missing(tmp_path: Path) -> None:
    lines = after_pretraining(PretrainConfig(data=str(write_flat(tmp_path / "flat", 4)), out=tmp_path / "run"))
    assert "FOLDER: a folder with train/ and test/" in lines[0]
    assert all("--data FOLDER" in line for line in lines[1:])
    assert "--data wds/" not in "".join(after_pretraining(PretrainConfig(data="wds/shards", out=tmp_path / "run")))
