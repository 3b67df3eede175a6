"""The registry: by name, with pins, and honest about being empty."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gmml_models as gm
from benchmarks import zoo
from gmml_models.cli import main
from gmml_models.errors import NotThereError, WrongBytesError
from gmml_models.models import registry
from gmml_models.models.ranking import as_markdown, rankings

NAME = "gmml_vit_micro_patch8_64.nothing"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    torch.manual_seed(0)
    about = {
        "data": {"name": "nothing", "licence": "CC0-1.0"},
        "recipe": {"epochs": 3},
        "metrics": [{"name": "k-NN", "value": 12.5, "spread": 0.5, "measured_by": "a test"}],
    }
    gm.GMMLAutoencoder("vit_micro_patch8_64", depth=2).save_pretrained(tmp_path / NAME, about=about, license="cc0-1.0")
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    return tmp_path


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_bundled_weights_are_listed_and_loaded(bundled: Path) -> None:
    assert gm.list_models() == [NAME]
    assert gm.list_models("*caltech*") == []
    model = gm.create_model(NAME, pretrained=True)
    given = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(given), gm.GMMLAutoencoder.from_pretrained(bundled / NAME)(given))
    assert torch.equal(gm.from_pretrained(NAME)(given), model.encoder(given))


def test_bundled_weights_are_checked(bundled: Path) -> None:
    path = bundled / NAME / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(WrongBytesError):
        gm.create_model(NAME, pretrained=True)


def test_random_weights_need_no_registry() -> None:
    model = gm.create_model("gmml_vit_micro_patch8_64", depth=2, decoder="release")
    assert model.img_size == (64, 64)
    assert model.decoder_name == "release"


def test_an_unknown_name_says_what_there_is(bundled: Path) -> None:
    with pytest.raises(NotThereError, match=f"There are: {NAME}"):
        gm.create_model("gmml_vit_micro_patch8_64.nothin", pretrained=True)
    with pytest.raises(ValueError, match="does not begin with 'gmml_'") as error:
        gm.create_model("vit_micro_patch8_64")
    for code in ("create_model('gmml_vit_micro_patch8_64')", "gmml_models.build_encoder('vit_micro_patch8_64')"):
        assert code in str(error.value)
        assert eval(code, {"gmml_models": gm, "create_model": gm.create_model}).training is True
    with pytest.raises(ValueError, match="options \\['depth'\\]"):
        gm.create_model(NAME, pretrained=True, depth=3)


def test_an_empty_registry_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    assert gm.list_models() == []
    with pytest.raises(NotThereError, match="The registry is empty so far"):
        gm.create_model(NAME, pretrained=True)
    assert run("models") == 0
    assert "holds no weights yet" in capsys.readouterr().out


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize(
    ("word", "codes"),
    [
        ("openclipart", ()),
        ("vit_micro_patch8_64", ("gmml_models.build_encoder('vit_micro_patch8_64')",)),
        ("vit_tiny_patch16_224", ("gmml_models.build_encoder('vit_tiny_patch16_224')", "timm.create_model(")),
    ],
)
@pytest.mark.parametrize("load", [gm.from_pretrained, gm.GMMLAutoencoder.from_pretrained, gm.transform])
def test_a_word_that_names_no_weights_is_told_what_there_is(load: Callable[[str], object], word: str, codes: Sequence[str]) -> None:
    with pytest.raises(NotThereError, match=f"^from_pretrained: '{word}' is neither a folder.*There are: .*{NAME}") as error:
        load(word)
    assert all(code in str(error.value) for code in codes)
    assert ("build_encoder" in str(error.value)) == bool(codes)
    assert ("timm" in str(error.value)) == (len(codes) == 2)


@pytest.mark.usefixtures("bundled")
def test_what_is_printed_below_the_list_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    code, *commands = capsys.readouterr().out.partition("To use one")[2].splitlines()[1:]
    assert f"'{NAME}'" in code
    exec(code.strip(), {"gmml_models": gm})
    for number in range(4):
        split = tmp_path / "images" / ("train" if number % 2 else "test") / "ab"[number // 2]
        split.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20), (number * 50, 0, 0)).save(split / f"{number}.png")
    ready = {"FOLDER": str(tmp_path / "images"), "features.npz": str(tmp_path / "features.npz"), "RUN": str(tmp_path / "run")}
    words = [[ready.get(word, word) for word in shlex.split(line)] for line in commands]
    assert [line[:2] for line in words] == [["gmml", "embed"], ["gmml", "finetune"]]
    assert run(*words[0][1:]) == 0
    assert (tmp_path / "features.npz").exists()
    assert run(*words[1][1:], "--dry-run", "--batch-size", "2", "--cpu", "--workers", "0") == 0


@pytest.mark.usefixtures("bundled")
def test_the_list_shows_what_each_holds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("models") == 0
    shown = capsys.readouterr().out
    assert shown.splitlines()[0] == NAME  # whole, to be copied
    for word in (
        NAME,
        "encoder 4",
        "model.safetensors",
        "decoder.safetensors",
        "CC0-1.0",
        "12.5",
        "by a test",
        "cc0-1.0",
        "in the package",
    ):
        assert word in shown
    assert run("models", "--pattern", "*else*") == 0
    assert "no name matches" in capsys.readouterr().out


def ranked(folder: Path, name: str, linear: float, **encoder: Any) -> None:
    """Weights with a number beside two baselines."""
    beside = [{"name": "HOG", "value": 30.0, "spread": 1.0}, {"name": "untrained", "value": linear / 2}]
    metric = {
        "name": "linear probe, top-1 %",
        "value": linear,
        "dataset": {"id": "one", "name": "One"},
        "split": "test",
        "images": 12,
        "baselines": beside,
    }
    gm.GMMLAutoencoder("vit_micro_patch8_64", **encoder).save_pretrained(
        folder / name, about={"metrics": [metric], "cost": {"gmacs": 0.08}}, license="cc0-1.0"
    )


def test_the_best_stand_first_with_baselines_among_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    ranked(tmp_path, "gmml_vit_micro_patch8_64.good", 40.0, depth=2)
    ranked(tmp_path, "gmml_vit_micro_patch8_64.poor", 10.0)
    (found,) = rankings(registry.registry().values())
    assert (found.dataset, found.split, found.images) == ("One", "test", 12)
    assert [(row.name.removeprefix("gmml_vit_micro_patch8_64."), row.weights) for row in found.rows] == [
        ("good", True),
        ("HOG", False),
        ("untrained", False),
        ("poor", True),
        ("untrained, vit_micro_patch8_64", False),
    ]
    assert found.rows[0].encoder == "2 blocks, 128 wide, 0.4 M, 0.08 GMACs"
    assert found.rows[3].encoder == "vit_micro_patch8_64, 1.2 M, 0.08 GMACs"
    assert run("models") == 0
    shown = capsys.readouterr().out
    assert "One; split test, 12 images" in shown
    lines = [line.split() for line in shown.splitlines() if line.startswith("  ") and line.split()[0] in "12345"]
    assert [line[1] for line in lines] == [
        "gmml_vit_micro_patch8_64.good",
        "HOG",
        "untrained",
        "gmml_vit_micro_patch8_64.poor",
        "untrained,",
    ]
    assert "| 1 | **gmml_vit_micro_patch8_64.good** | 2 blocks, 128 wide, 0.4 M, 0.08 GMACs | 40.0 | cc0-1.0 |" in as_markdown(
        [found]
    )
    assert "| 2 | HOG |  | 30.0 ± 1.0 |  |" in as_markdown([found])


def test_weights_without_a_measured_set_are_in_no_table(bundled: Path) -> None:
    assert rankings(registry.registry().values()) == []


def test_the_page_of_the_zoo_is_what_the_folders_say() -> None:
    page = zoo.PAGE.read_text(encoding="utf-8")
    assert zoo.draw() in page, f"{zoo.COMMAND} draws it anew"
    for name in gm.list_models():
        assert f"**{name}**" in page
