"""The playground without its page: knobs, pictures, words, the Space's folder, and what the command refuses."""

from __future__ import annotations

import ast
import re
import socket
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import gmml_aug
import gmml_models as gm
from gmml_aug import Alien, Boxes, Cells, Chain, Grey, InBoxes, Noise, OneOf, Zeros
from gmml_aug.places.boxes import Placement
from gmml_models.cli import play as play_command
from gmml_models.cli.main import COMMANDS
from gmml_models.cli.play import Play
from gmml_models.data import image_files
from gmml_models.errors import UsageError
from gmml_models.figures import corruption_steps
from gmml_models.models import registry
from gmml_models.play import html, reconstruction, space
from gmml_models.play.controls import FILLS, OWN, PRESETS, VALUES, Knobs, code
from gmml_models.play.image_picker import Album
from gmml_models.play.pictures import Captioned, Look, look

SIZE = 64


def some_pictures(count: int = 4, size: int = SIZE) -> list[tuple[str, Image.Image]]:
    """Soft colours, different in every picture, far from what the mask is drawn in."""
    found = []
    for number in range(count):
        coarse = np.random.default_rng(number).integers(60, 200, (6, 6, 3), dtype=np.uint8)
        found.append((f"picture{number}", Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC)))
    return found


def seen(corrupt: Chain, key: int = 3, patch: int = 16, model: reconstruction.Restorer | None = None) -> Look:
    return look(corrupt, some_pictures(), key, patch, model)


def named(shown: Look, name: str) -> Captioned:
    (one,) = [one for one in (*shown.whole, *shown.steps) if one.name == name]
    return one


def bytes_of(shown: Look) -> list[bytes]:
    return [one.picture.tobytes() for one in (*shown.whole, *shown.steps)]


def executed(text: str, batch: torch.Tensor) -> dict[str, Any]:
    names: dict[str, Any] = {"batch": batch}
    exec(text, names)
    return names


# ---------------------------------------------------------------- knobs


@pytest.mark.parametrize("preset", PRESETS)
def test_untouched_knobs_are_the_preset(preset: str) -> None:
    knobs = Knobs.of(preset)
    assert knobs.composition() == getattr(gmml_aug.presets, preset)(values=VALUES)
    assert not knobs.idle()
    for value in (*knobs.ratio, *knobs.side, knobs.budget):
        assert value == round(value, 2), "no step of a slider"


def test_every_preset_but_that_for_clips_can_be_chosen() -> None:
    assert sorted(PRESETS) == sorted(set(gmml_aug.presets.names()) - {"tubes"})


settings = st.builds(
    Knobs,
    preset=st.sampled_from([*PRESETS, OWN]),
    fills=st.sets(st.sampled_from(list(FILLS))).map(lambda chosen: tuple(name for name in FILLS if name in chosen)),
    choice=st.booleans(),
    ratio=st.tuples(*[st.integers(0, 100).map(lambda hundredth: hundredth / 100)] * 2),
    side=st.tuples(*[st.integers(0, 100).map(lambda hundredth: hundredth / 100)] * 2),
    placement=st.sampled_from(get_args(Placement)),
    align=st.sampled_from([1, 8, 16, 32]),
    budget=st.integers(0, 100).map(lambda hundredth: hundredth / 100),
)


@given(settings)
def test_whatever_is_turned_is_built_and_written_as_code_or_refused_in_the_librarys_words(knobs: Knobs) -> None:
    try:
        corrupt = knobs.composition()
    except ValueError as error:
        assert re.match(r"(Boxes|Cells|Blocks|Chain): ", str(error))  # noqa: PT017
        return
    text = code(corrupt, 1).partition("images, mask")[0]
    assert executed(text, torch.empty(0))["corrupt"] == corrupt
    kinds = {name.lower() for name in corrupt.program.names}
    assert kinds == set(knobs.fills)
    assert corrupt.budget == (None if knobs.budget == 1.0 else knobs.budget)


@pytest.mark.parametrize("preset", [*PRESETS, OWN])
def test_the_code_does_with_the_batch_what_is_shown(preset: str) -> None:
    corrupt = Knobs.of(preset).composition()
    batch = corruption_steps.normalise(corruption_steps.to_batch([picture for _, picture in some_pictures(size=160)]))
    done = executed(code(corrupt, 5), batch)
    shown = look(corrupt, some_pictures(size=160), 5, 16)
    (first, *_) = corruption_steps.to_pictures(done["images"])
    assert np.array_equal(np.asarray(named(shown, "corrupted").picture), np.asarray(first))


def test_a_turned_knob_reaches_all_boxes_that_are_painted_up_to_a_ratio() -> None:
    turned = replace(Knobs.of("gmml"), ratio=(0.1, 0.5), side=(0.1, 0.2), placement="inside", align=8).composition()
    some = Boxes(ratio=(0.1, 0.5), side=(0.1, 0.2), placement="inside", align=8)
    single = Boxes(count=1, side=(0.05, 1.0), placement="inside")
    blur = gmml_aug.Blur(sigma=(0.1, 1.1), kernel=(3, 15))
    expected = [InBoxes(some, Noise()), InBoxes(some, Alien()), InBoxes(single, Grey()), InBoxes(single, blur)]
    assert turned == Chain(expected, values=VALUES)


def test_steps_that_differ_stay_different_until_their_knob_is_turned() -> None:
    def ratios(knobs: Knobs) -> list[object]:
        return [place.ratio for place in knobs.composition().program.places if isinstance(place, Boxes)]

    sit = Knobs.of("sit")
    assert ratios(replace(sit, side=(0.1, 0.2))) == [0.5, 0.3]
    assert ratios(replace(sit, ratio=(0.2, 0.6))) == [(0.2, 0.6)] * 2


def test_fills_leave_and_join_a_preset() -> None:
    left = replace(Knobs.of("sit"), fills=("zeros",)).composition()
    assert [type(step.fill) for step in left.program.steps] == [Zeros]
    joined = replace(Knobs.of("mae"), fills=("zeros", "alien")).composition()
    assert joined.parts[0] == Knobs.of("mae").composition().parts[0]
    assert joined.parts[1] == InBoxes(Boxes(ratio=0.75), Alien())


def test_a_composition_of_ones_own_is_a_chain_or_a_choice() -> None:
    own = replace(Knobs.of(OWN), fills=("noise", "grey"), ratio=(0.2, 0.2))
    parts = [InBoxes(Boxes(ratio=0.2), Noise()), InBoxes(Boxes(ratio=0.2), Grey())]
    assert own.composition() == Chain(parts, values=VALUES)
    assert replace(own, choice=True, budget=0.4).composition() == Chain([OneOf(parts)], budget=0.4, values=VALUES)


@pytest.mark.parametrize("choice", [False, True])
@pytest.mark.parametrize("preset", [OWN, "gmml"])
def test_without_fills_the_library_says_so(preset: str, choice: bool) -> None:
    with pytest.raises(ValueError, match="Chain: the list of parts is empty"):
        replace(Knobs.of(preset), fills=(), choice=choice).composition()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'other' is unknown. Allowed: ablation, .*your own"):
        Knobs.of("other")
    with pytest.raises(ValueError, match=r"'snow' is unknown. Allowed: noise, "):
        Knobs(fills=("snow",)).composition()


def test_what_is_turned_for_nothing_is_named() -> None:
    turned: dict[str, Any] = {"ratio": (0.1, 0.2), "side": (0.1, 0.2), "placement": "inside", "align": 8}
    assert replace(Knobs.of("gmml"), **turned).idle() == ()
    assert replace(Knobs.of("mae"), **turned).idle() == ("side", "placement", "align")
    assert replace(Knobs.of("specaugment"), **turned).idle() == ("ratio", "side", "placement", "align")
    mae = replace(Knobs.of("mae"), ratio=(0.1, 0.2)).composition().program.places[0]
    assert isinstance(mae, Cells)
    assert mae.ratio == (0.1, 0.2)
    assert "side, placement" in html.note(("side", "placement"), "mae")
    assert html.note((), "mae") == ""


# ---------------------------------------------------------------- pictures


@pytest.mark.parametrize("size", [64, 224])
def test_all_pictures_are_there_in_one_size(size: int) -> None:
    shown = look(Knobs.of("gmml").composition(), some_pictures(size=size), 1, 16)
    assert [one.name for one in shown.whole] == ["clean", "corrupted", "mask", "patch mask", "who did what"]
    assert {one.picture.size for one in (*shown.whole, *shown.steps)} == {(192, 192) if size == 64 else (224, 224)}
    shares = [float(entry.words.split()[-2]) for entry in shown.legend]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_a_key_repeats_its_pictures_and_another_does_not() -> None:
    corrupt = Knobs.of("gmml").composition()
    assert bytes_of(seen(corrupt, 7)) == bytes_of(seen(corrupt, 7))
    assert named(seen(corrupt, 7), "mask").picture.tobytes() != named(seen(corrupt, 8), "mask").picture.tobytes()
    assert named(seen(corrupt, 7), "clean").picture.tobytes() == named(seen(corrupt, 8), "clean").picture.tobytes()


def test_the_mask_is_dark_exactly_where_the_picture_was_touched() -> None:
    corrupt = replace(Knobs.of(OWN), fills=("zeros",), ratio=(0.25, 0.25)).composition()
    shown = seen(corrupt)
    dark = (np.asarray(named(shown, "mask").picture) == (0x45, 0x45, 0x41)).all(axis=2)
    clean, corrupted = (np.asarray(named(shown, name).picture) for name in ("clean", "corrupted"))
    assert dark.mean() == 0.25
    assert np.array_equal((clean != corrupted).any(axis=2) | dark, dark)
    assert "25.0 %" in named(shown, "corrupted").words


def test_the_patch_mask_is_as_dark_as_the_share_of_its_patches() -> None:
    corrupt = replace(Knobs.of("mae"), ratio=(0.5, 0.5)).composition()
    shown = seen(corrupt, patch=16)  # 4 x 4 patches, each whole or not at all
    mask, patches = (np.asarray(named(shown, name).picture.convert("L")) for name in ("mask", "patch mask"))
    assert "8 of 16 above half" in named(shown, "patch mask").words
    centres = slice(8, None, 48)  # away from numbers and lines
    assert np.array_equal(patches[centres, centres] < 100, mask[centres, centres] < 100)
    assert (patches[centres, centres] < 100).sum() == 8
    half = seen(replace(Knobs.of(OWN), fills=("zeros",), ratio=(0.5, 0.5)).composition(), patch=64)
    assert 100 < np.asarray(named(half, "patch mask").picture.convert("L"))[8, 8] < 180  # one patch, half of it


def test_an_alien_step_shows_whom_it_took_from() -> None:
    corrupt = replace(Knobs.of(OWN), fills=("alien",), ratio=(1.0, 1.0)).composition()
    donors = set()
    for key in range(12):
        shown = seen(corrupt, key)
        alone, donor = shown.steps
        assert np.array_equal(np.asarray(alone.picture), np.asarray(donor.picture))
        assert donor.name.removeprefix("picture ") == alone.words.rpartition(" ")[2]
        donors.add(donor.words)
    assert donors == {f"picture{number}, its donor" for number in (1, 2, 3)}


def test_a_step_that_was_not_chosen_has_no_donor() -> None:
    corrupt = replace(Knobs.of(OWN), fills=("noise", "alien"), choice=True).composition()
    found = {tuple(one.name.split()[0] for one in seen(corrupt, key).steps) for key in range(12)}
    assert found == {("noise", "alien"), ("noise", "alien", "picture")}


def test_what_does_not_go_together_is_said_in_the_librarys_words() -> None:
    with pytest.raises(ValueError, match="Boxes: align=128 is larger than the image"):
        seen(replace(Knobs.of(OWN), align=128).composition())
    with pytest.raises(ValueError, match="Alien"):
        look(Knobs.of("gmml").composition(), some_pictures(1), 0, 16)


def test_the_chosen_picture_comes_first_and_an_upload_before_it(tmp_path: Path) -> None:
    paths = []
    for name, picture in some_pictures(3):
        paths.append(tmp_path / f"{name}.png")
        picture.save(paths[-1])
    some_pictures(5)[4][1].save(tmp_path / "own.png")
    album = Album(tuple(paths))
    assert [name for name, _ in album.batch(1, None, 32)] == ["picture1", "picture0", "picture2"]
    assert [name for name, _ in album.batch(1, str(tmp_path / "own.png"), 32)] == ["your picture", *album.names()]
    assert {picture.size for _, picture in album.batch(1, str(tmp_path / "own.png"), 32)} == {(32, 32)}
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"gmml play: the picture that was uploaded cannot be read: not an image, .*Give a JPEG"):
        album.batch(0, str(tmp_path / "text.png"), 32)


# ---------------------------------------------------------------- the reconstruction


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    torch.manual_seed(0)
    gm.GMMLAutoencoder("vit_micro_patch8_64", depth=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4)).save_pretrained(folder)
    return folder


def test_the_model_gets_the_corrupted_picture_as_it_was_trained_on(weights: Path) -> None:
    restore = reconstruction.load(str(weights))
    assert restore is not None
    assert (restore.size, restore.patch) == (64, 8)
    unit = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(part)[:, None, None] for part in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    with torch.inference_mode():
        expected = gm.GMMLAutoencoder.from_pretrained(weights)((unit - mean) / std) * std + mean
    ours, spread = (torch.tensor(part)[:, None, None] for part in (corruption_steps.MEAN, corruption_steps.STD))
    torch.testing.assert_close(restore((unit - ours) / spread) * spread + ours, expected, rtol=1e-4, atol=1e-5)


def test_the_reconstruction_is_shown_with_its_error(weights: Path) -> None:
    restore = reconstruction.load(str(weights))
    corrupt = replace(Knobs.of(OWN), fills=("alien",), ratio=(0.4, 0.4)).composition()
    shown = seen(corrupt, model=restore)
    assert [one.name for one in shown.whole][-1] == "reconstruction"
    pixels = {one.name: np.asarray(one.picture).astype(float) for one in shown.whole}
    dark = (pixels["mask"] == (0x45, 0x45, 0x41)).all(axis=2)
    error, was = (np.abs(pixels[name] - pixels["clean"])[dark].mean() for name in ("reconstruction", "corrupted"))
    assert shown.whole[-1].words == f"error over touched pixels {error:.1f}, was {was:.1f}"
    nothing = seen(replace(Knobs.of(OWN), ratio=(0.0, 0.0)).composition(), model=restore)
    assert nothing.whole[-1].words == ""


def test_a_model_of_normalised_patches_takes_their_statistics_from_the_clean_picture(tmp_path: Path) -> None:
    torch.manual_seed(0)
    gm.GMMLAutoencoder("vit_micro_patch8_64", depth=2, target="normalised", mean=(0.5, 0.4, 0.3)).save_pretrained(tmp_path / "it")
    restore = reconstruction.load(str(tmp_path / "it"))
    assert restore is not None
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    corrupted = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = restore(corrupted, images)
    small, smaller = (torch.nn.functional.avg_pool2d(one.mean(1), 8) for one in (images, found))
    plain = torch.nn.functional.avg_pool2d(restore(corrupted).mean(1), 8)
    assert (smaller - small).abs().mean() < (plain - small).abs().mean()
    shown = seen(replace(Knobs.of(OWN), fills=("alien",), ratio=(0.4, 0.4)).composition(), model=restore)
    assert shown.whole[-1].words.endswith("brightness and contrast of patches from the clean picture")


def test_a_size_that_the_model_does_not_take_leaves_the_other_pictures(weights: Path) -> None:
    shown = look(Knobs.of(OWN).composition(), some_pictures(size=60), 0, 16, reconstruction.load(str(weights)))
    assert "60 x 60 are not a whole number of patches of 8 x 8" in shown.whole[-1].words
    assert len(shown.whole) == 6


def test_without_weights_the_page_says_how_to_give_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weights: Path) -> None:
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    assert reconstruction.load(None) is None
    assert "--weights FOLDER" in html.board(seen(Knobs.of(OWN).composition()))
    weights.rename(tmp_path / "gmml_first.data")
    try:
        found = reconstruction.load(None)
        assert found is not None
        assert found.name == "gmml_first.data"
    finally:
        (tmp_path / "gmml_first.data").rename(weights)


def test_weights_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gmml play: --weights .*nothing cannot be used\. "):
        reconstruction.load(str(tmp_path / "nothing"))
    gm.GMMLAutoencoder("vit_micro_patch8_64", depth=1, in_chans=1).save_pretrained(tmp_path / "grey")
    with pytest.raises(UsageError, match="images of 1 channels"):
        reconstruction.load(str(tmp_path / "grey"))


# ---------------------------------------------------------------- words of the page


def test_the_board_holds_every_picture_and_nothing_that_is_fetched() -> None:
    shown = seen(Knobs.of("gmml").composition())
    text = html.board(shown)
    assert text.count("<img ") == len(shown.whole) + len(shown.steps)
    assert text.count('src="data:image/png;base64,') == text.count("src=")
    assert "http" not in re.sub(r'base64,[^"]*', "", text)
    for entry in shown.legend:
        assert entry.words in text


def test_what_stands_on_the_page_is_escaped() -> None:
    one = Captioned("<b>", Image.new("RGB", (4, 4)), '"<i>')
    assert "<i>" not in html.board(Look((one,), (), ()))
    assert "&lt;b&gt;: &quot;&lt;i&gt;" in html.board(Look((one,), (), ()))
    assert "&lt;x&gt; is wrong" in html.wrong(ValueError("<x> is wrong."))


# ---------------------------------------------------------------- the folder of a Space


def test_a_space_has_a_card_a_program_and_its_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Play(space=tmp_path / "space").run() == 0
    assert "is a Space" in capsys.readouterr().out
    folder = tmp_path / "space"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["README.md", "app.py", "requirements.txt", "space"]
    _, front, text = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    card = dict(line.split(": ", 1) for line in front.splitlines())
    assert card["sdk"] == "gradio"
    assert card["sdk_version"] == space.GRADIO
    assert card["app_file"] == "app.py"
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f">={card['python_version'].strip(chr(34))}" == project["requires-python"]
    assert len(card["short_description"]) <= 60
    assert text.startswith("\n# gmml playground")
    (least,) = re.findall(r"gradio>=([\d.]+)", " ".join(project["optional-dependencies"]["play"]))
    assert [int(part) for part in least.split(".")] <= [int(part) for part in card["sdk_version"].split(".")]
    assert (folder / "requirements.txt").read_text() == f"gmml[play]=={gmml_aug.__version__}\n"
    for path in folder.iterdir():
        assert "@" not in path.read_text(encoding="utf-8"), "an account or an address"


def test_the_program_of_a_space_calls_the_command_as_it_is() -> None:
    tree = ast.parse(space.files()["app.py"])
    (call,) = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Play"]
    play = Play(**{keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords if keyword.arg})
    assert play == Play(host="0.0.0.0", no_browser=True)
    compile(tree, "app.py", "exec")


def test_a_space_takes_the_place_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    Play(space=tmp_path / "there").run()  # empty: it is filled
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for place, says in ((tmp_path / "there", "already exists"), (tmp_path / "no" / "space", "could not be written")):
        with pytest.raises(UsageError, match=says):
            Play(space=place).run()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_half_a_space_is_never_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        if path.name == "app.py":
            raise OSError(28, "No space left on device")
        return written(path, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="could not be written: No space left on device"):
        Play(space=tmp_path / "space").run()
    assert not any(tmp_path.iterdir())


# ---------------------------------------------------------------- the command


def test_the_command_is_listed() -> None:
    assert COMMANDS["play"] is Play


@pytest.mark.parametrize("port", [0, 70_000])
def test_a_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=rf"--port {port} is out of range. Allowed: 1 to 65535."):
        Play(port=port).run()


def test_a_taken_port_and_a_foreign_address_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_command, "find_spec", lambda name: object())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=rf"nothing can be served at 127.0.0.1, port {port}: .*in use"):
            Play(port=port).run()
    with pytest.raises(UsageError, match=r"nothing can be served at 192.0.2.1, from port 7860 on: "):
        Play(host="192.0.2.1").run()


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_command, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r'gradio, which is not installed. .*pip install "\.\[play\]" in a clone'):
        Play().run()
    monkeypatch.setattr(play_command, "find_spec", lambda name: object())
    monkeypatch.setattr(image_files, "bundled", tuple)
    with pytest.raises(UsageError, match=r'scikit-image, which is not installed. .*pip install "\.\[play\]" in a clone'):
        Play().run()
