"""``gmml reconstruct``, ``attention``, ``concepts``: weights and images in, PNG or PDF out; messages, and nothing half-written."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import gmml_models as gm
from gmml_models.cli.figures import Reconstruct
from gmml_models.data import image_files
from gmml_models.errors import UsageError
from gmml_models.figures import contact_sheet, palette, tiles
from gmml_models.figures.canvas import Canvas
from gmml_models.recipes.concept_head import open_concept_head
from gmml_models.recipes.pretraining import build_objective, pretrain
from tests.models.command_line import Run, call, write_photographs
from tests.models.runs import Pictures, small

COMMANDS = ("reconstruct", "attention", "concepts")
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "patch_size": 8}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    return lambda *words: call(capsys, *words, "--device", "cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small autoencoder as chance made it."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    gm.GMMLAutoencoder("vit_tiny_patch16_224", **SMALL).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of MC-SSL, to its end."""
    out = tmp_path_factory.mktemp("run") / "mc_ssl"
    pretrain(small(out, method="mc_ssl", classes=16, head_width=16, epochs=1, pictures_every=0), dataset=Pictures(count=16))
    return out


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with three colourful images of different sizes."""
    return write_photographs(tmp_path / "photos")


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


# ---------------------------------------------------------------- files


@pytest.mark.parametrize("command", COMMANDS)
def test_equal_calls_give_equal_bytes_as_png_and_as_pdf(
    run: Run, weights: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    words = [command, photos, "--weights", weights]
    for ending in ("png", "pdf"):
        for name in ("a", "b"):
            ran = run(*words, "-o", tmp_path / f"{name}.{ending}")
            assert (ran.code, ran.err) == (0, "")
            assert "of 3 images" in ran.out
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()
    page = (tmp_path / "a.pdf").read_bytes()
    assert page.startswith(b"%PDF-")
    assert page.count(b"/Type /Page\n") == 1
    with Image.open(io.BytesIO(page[page.index(b"\xff\xd8\xff") :])) as inside:  # twice as fine as the PNG
        assert inside.size == tuple(2 * side for side in size_of(tmp_path / "a.png"))
        small = inside.convert("RGB").reduce(2)
    with Image.open(tmp_path / "a.png") as whole:
        assert np.abs(np.asarray(small).astype(int) - np.asarray(whole)).mean() < 2.5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pdf", "a.png", "b.pdf", "b.png", "photos"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("count", [1, 16])
def test_one_image_and_sixteen_are_drawn_sensibly(
    run: Run, weights: Path, photos: Path, tmp_path: Path, command: str, count: int
) -> None:
    files = [photos / f"photo{number % 3}.png" for number in range(count)]
    ran = run(command, *files, "--weights", weights, "-o", tmp_path / "figure.png")
    assert ran.code == 0
    width, height = size_of(tmp_path / "figure.png")
    rows = {"reconstruct": {1: 1, 16: 32}, "attention": {1: 2, 16: 17}, "concepts": {1: 1, 16: 8}}[command][count]
    edge = 160 if (rows <= 9 and count == 1) or command == "concepts" else 128
    columns = {"reconstruct": 6, "attention": 4, "concepts": 4 if count == 1 else 8}[command]
    assert width == 2 * 64 + max(560, 132 + columns * (edge + 14) - 14)
    assert rows * (edge + 16) < height < rows * (edge + 38) + 500
    assert ("give two or more" in ran.err) == (command == "reconstruct" and count == 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_images_those_of_scikit_image_are_taken_and_the_file_has_the_commands_name(
    run: Run, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    pytest.importorskip("skimage")
    monkeypatch.chdir(tmp_path)
    assert "of 5 images" in run(command, "--weights", weights).out
    assert [path.name for path in tmp_path.iterdir()] == [f"{command}.png"]
    monkeypatch.setattr(image_files, "bundled", tuple)
    ran = run(command, "--weights", weights)
    assert ran.code == 2
    assert 'pip install ".[demo]" in a clone' in ran.err


def test_broken_files_are_named_and_the_others_drawn(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "text.png").write_text("not an image at all")
    ran = run("attention", photos, "--weights", weights, "-o", tmp_path / "figure.png", "--count", "2")
    assert "2 files that were not read" in ran.out
    ran = run("attention", photos, "--weights", weights, "-o", tmp_path / "figure.png")
    assert ran.code == 1
    assert "text.png is skipped: not an image" in ran.err
    assert "of 3 images" in ran.out


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_a_failed_write_keeps_the_old_figure(
    run: Run, weights: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    (tmp_path / f"figure.{ending}").write_bytes(b"old")

    def full(handle: int) -> None:  # what was written is seen to have no room when it is flushed
        raise OSError(28, f"No space left on device for {handle}")

    monkeypatch.setattr(os, "fsync", full)
    ran = run("attention", photos, "--weights", weights, "-o", tmp_path / f"figure.{ending}")
    assert ran.code == 2
    assert "No space left on device" in ran.err
    assert (tmp_path / f"figure.{ending}").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"figure.{ending}", "photos"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--weights", ""), "no weights. Give --weights"),
        (("--weights", "{tmp}/nothing"), "neither a folder that exists nor a Hub name"),
        (("-o", "{tmp}/figure.jpg"), "does not end in .png or .pdf"),
        (("-o", "{tmp}/no/figure.png"), "a folder that does not exist"),
        (("-o", "{tmp}/photos/photo1.png"), "never written to"),
        (("--count", "0"), "--count 0 is out of range. Allowed: 1 to 64."),
        (("--size", "5000"), "--size 5000 is out of range"),
        (("--size", "36"), "not a whole number of patches of 8 x 8. Give --size 32."),
        (("--size", "3"), "Give --size 8."),
    ],
)
def test_bad_arguments_end_with_two_and_leave_nothing(
    run: Run, weights: Path, photos: Path, tmp_path: Path, command: str, words: tuple[str, ...], says: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    given: dict[str, object] = {"--weights": weights, "-o": tmp_path / "figure.png"}
    given.update({name: value.format(tmp=tmp_path) for name, value in zip(words[::2], words[1::2], strict=True)})
    images = [photos / "photo0.png", photos / "photo1.png"]
    ran = run(command, *images, *(word for pair in given.items() for word in pair))
    assert ran.code == 2
    assert ran.err.startswith(f"gmml {command}: ")
    assert says in ran.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("reconstruct", "--blocks", "2", "1"), "ascending whole numbers from 1 to 3"),
        (("reconstruct", "--ratio", "1.5"), "--ratio 1.5 is not a share"),
        (("attention", "--blocks", "4"), "ascending whole numbers from 1 to 3"),
        (("attention", "--patch", "0", "4"), "from (0, 0) to (3, 3)"),
        (("concepts", "--clusters", "3", "2"), "ascending whole numbers from 2"),
        (("concepts", "--clusters", "9"), "more than the 8 colours"),
        (("concepts", "--bars"), "only the checkpoints of a run hold the head"),
    ],
)
def test_bad_options_of_one_command(
    run: Run, weights: Path, photos: Path, tmp_path: Path, words: tuple[str, ...], says: str
) -> None:
    ran = run(words[0], photos, "--weights", weights, "-o", tmp_path / "figure.png", *words[1:])
    assert ran.code == 2
    assert says in ran.err
    assert not (tmp_path / "figure.png").exists()


# ---------------------------------------------------------------- weights


def test_the_folder_of_a_run_is_as_good_as_its_weights(run: Run, learnt: Path, photos: Path, tmp_path: Path) -> None:
    for command in COMMANDS:
        for name, folder in (("run", learnt), ("weights", learnt / "weights")):
            assert run(command, photos, "--weights", folder, "-o", tmp_path / f"{name}.png").code == 0
        assert size_of(tmp_path / "run.png") == size_of(tmp_path / "weights.png")


def test_a_run_that_is_not_at_its_end_is_refused(run: Run, learnt: Path, photos: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(learnt, begun)
    shutil.rmtree(begun / "weights")
    ran = run("attention", photos, "--weights", begun, "-o", tmp_path / "figure.png")
    assert (ran.code, "has no weights yet" in ran.err) == (2, True)


def test_a_decoder_that_was_not_trained_or_is_not_there_is_refused(run: Run, weights: Path, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = gm.GMMLAutoencoder("vit_tiny_patch16_224", **SMALL)
    model.save_pretrained(tmp_path / "concepts", about={"recipe": {"method": "mc_ssl", "terms": "concepts"}})
    ran = run("reconstruct", photos, "--weights", tmp_path / "concepts", "-o", tmp_path / "figure.png")
    assert (ran.code, "was not trained (--terms concepts)" in ran.err) == (2, True)
    gm.Classifier(model.encoder, 3).save_pretrained(tmp_path / "classifier")
    ran = run("reconstruct", photos, "--weights", tmp_path / "classifier", "-o", tmp_path / "figure.png")
    assert (ran.code, "no decoder of gmml" in ran.err) == (2, True)
    assert run("attention", photos, "--weights", tmp_path / "classifier", "-o", tmp_path / "figure.png").code == 0


def test_encoders_of_one_channel_see_grey_and_others_are_refused(run: Run, photos: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for channels in (1, 5):
        gm.GMMLAutoencoder("vit_tiny_patch16_224", **SMALL, in_chans=channels).save_pretrained(tmp_path / f"{channels}")
    for command in COMMANDS:
        assert run(command, photos, "--weights", tmp_path / "1", "-o", tmp_path / "figure.png").code == 0
        ran = run(command, photos, "--weights", tmp_path / "5", "-o", tmp_path / "figure.png")
        assert (ran.code, "photographs have 1 or 3" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("about", "class_token", "wanted"),
    [
        ({"objective": "gmml"}, True, "mean patch"),
        ({"objective": "sit"}, True, "class token"),
        ({"objective": "mc_ssl", "recipe": {"cls_loss": True}}, True, "class token"),
        ({"objective": "mc_ssl", "recipe": {"cls_loss": False}}, True, "mean patch"),
        ({"objective": "gmml", "classifier": {"pool": "token"}}, True, "class token"),
        ({"objective": "sit"}, False, "mean patch"),
        ({}, True, "class token"),
    ],
)
def test_the_class_token_looks_where_something_trained_it(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, run: Run, about: dict[str, Any], class_token: bool, wanted: str
) -> None:
    torch.manual_seed(0)
    pool: dict[str, Any] = {} if class_token else {"class_token": False, "global_pool": ""}
    gm.GMMLAutoencoder("vit_tiny_patch16_224", **SMALL, **pool).save_pretrained(tmp_path / "weights", about=about)
    said: list[str] = []
    draw = contact_sheet.Sheet.draw

    def listen(self: contact_sheet.Sheet, scale: int = 1) -> Image.Image:
        said.append(self.about)
        return draw(self, scale)

    monkeypatch.setattr(contact_sheet.Sheet, "draw", listen)
    assert run("attention", photos, "--weights", tmp_path / "weights", "-o", tmp_path / "figure.png").code == 0
    assert f"how much the {wanted} attends" in said[0]


# ---------------------------------------------------------------- the concept head


def test_bars_are_the_teachers_probabilities(run: Run, learnt: Path, photos: Path, tmp_path: Path) -> None:
    assert run("concepts", photos, "--weights", learnt, "-o", tmp_path / "plain.png").code == 0
    assert run("concepts", photos, "--weights", learnt / "weights", "--bars", "-o", tmp_path / "bars.png").code == 0
    assert size_of(tmp_path / "bars.png")[0] > size_of(tmp_path / "plain.png")[0]
    encoder = gm.from_pretrained(learnt / "weights")
    found = open_concept_head(str(learnt / "weights"), encoder, who="test")
    config = small(learnt, method="mc_ssl", classes=16, head_width=16, epochs=1, pictures_every=0)
    objective: Any = build_objective(config)
    from gmml_models.train import checkpoint

    newest = checkpoint.newest(learnt / "checkpoints")
    assert newest is not None
    tensors = checkpoint.read(newest)
    objective.load_state_dict({name.removeprefix("model/"): one for name, one in tensors.items() if name.startswith("model/")})
    tokens = torch.randn(2, 5, encoder.embed_dim)
    with torch.no_grad():
        assert torch.allclose(found.head(tokens), objective.teacher.head(tokens, None)[0], atol=1e-6)
    assert torch.equal(found.center, objective.patch_loss.center)
    assert found.center.abs().max() > 0


def test_a_head_that_does_not_belong_to_the_weights_is_refused(run: Run, learnt: Path, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    shutil.copytree(learnt, other)
    torch.manual_seed(9)
    gm.GMMLAutoencoder("vit_micro_patch4_32", img_size=16, patch_size=8).save_pretrained(other / "weights")
    ran = run("concepts", photos, "--weights", other, "--bars", "-o", tmp_path / "figure.png")
    assert (ran.code, "do not belong together" in " ".join(ran.err.split())) == (2, True)
    state = next((other / "checkpoints").glob("step-*/state.safetensors"))
    state.write_bytes(state.read_bytes()[:-1])
    ran = run("concepts", photos, "--weights", other, "--bars", "-o", tmp_path / "figure.png")
    assert (ran.code, "is damaged" in ran.err) == (2, True)


def test_a_run_without_concepts_says_so(run: Run, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "gmml"
    pretrain(small(out, epochs=1, pictures_every=0), dataset=Pictures(count=16))
    ran = run("concepts", photos, "--weights", out, "--bars", "-o", tmp_path / "figure.png")
    assert (ran.code, "has learnt no concepts" in ran.err) == (2, True)


# ---------------------------------------------------------------- drawing


def test_a_drawing_is_the_same_at_any_scale() -> None:
    canvas = Canvas(60, 40)
    canvas.paste(3, 4, Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)))
    canvas.rectangle(40, 2, 7, 9, "#0072B2")
    plain = np.asarray(canvas.draw())
    for scale in (2, 3):
        assert np.array_equal(np.asarray(canvas.draw(scale)), plain.repeat(scale, 0).repeat(scale, 1))
    canvas.write(3, 38, "words", 12)
    once, twice = np.asarray(canvas.draw()).astype(int), np.asarray(canvas.draw(2).reduce(2)).astype(int)
    assert np.abs(once - twice).mean() < 0.3 * np.abs(once - plain).mean()  # letters are only finer


def test_a_row_may_have_fewer_pictures_and_columns_their_own_width() -> None:
    def tile(colour: str, width: int) -> contact_sheet.Tile:
        return contact_sheet.Tile(Image.new("RGB", (width, 100), colour), "")

    rows = [
        contact_sheet.SheetRow("one", "", [tile("#FF0000", 100), tile("#00FF00", 250)]),
        contact_sheet.SheetRow("two", "", [tile("#0000FF", 100)]),
    ]
    drawn = np.asarray(contact_sheet.Sheet("title", "about", ["a", "b"], rows, [], "code()").draw())
    for colour, left, width in (((255, 0, 0), 196, 100), ((0, 255, 0), 310, 250), ((0, 0, 255), 196, 100)):
        _, columns = np.nonzero((drawn == colour).all(2))
        assert (columns.min(), columns.max() + 1 - columns.min(), len(columns)) == (left, width, 100 * width)


def test_heat_grows_lighter_with_the_numbers() -> None:
    picture = tiles.heat_tile(torch.linspace(0, 2, 64).reshape(8, 8), 1.0, 160)
    grey = np.asarray(picture.convert("L"))[10::20, 10::20].flatten().astype(int)  # the middle of each patch
    assert (np.diff(grey[:32]) > 0).all()
    assert (grey[32:] == grey[-1]).all()  # above the most, as bright as it
    assert picture.getpixel((0, 0)) == (0x44, 0x01, 0x54)


def test_clusters_keep_their_colour_over_any_photograph() -> None:
    labels = torch.arange(4).reshape(2, 2)
    for grey in (0, 128, 255):
        drawn = np.asarray(tiles.cluster_tile(labels, Image.new("RGB", (40, 40), (grey, grey, grey)))).astype(int)
        for number in range(4):
            pixel = drawn[10 + 20 * (number // 2), 10 + 20 * (number % 2)]
            away = [np.abs(pixel - tiles._rgb(colour)).sum() for colour in palette.CLUSTERS[:4]]
            assert int(np.argmin(away)) == number


def test_bars_are_as_high_as_their_numbers() -> None:
    drawn = np.asarray(tiles.bars_tile([0.0, 0.25, 0.5, 1.0, 7.0], "#F0E442", 200, 162)).astype(int)
    yellow = (drawn == (0xF0, 0xE4, 0x42)).all(2)
    heights = [int(yellow[:, 20 + 40 * number].sum()) for number in range(5)]
    assert heights[0] == 0
    assert heights[3] == heights[4]
    for height, share in zip(heights[1:4], (0.25, 0.5, 1.0), strict=True):
        assert abs(height - 160 * share) <= 3  # less its outline


def test_pictures_become_images_and_come_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in pixels]
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    images = tiles.to_images(pictures, mean, std)
    assert torch.allclose(images[1, 2], (torch.from_numpy(pixels[1, :, :, 2]).float() / 255 - 0.3) / 0.3, atol=1e-6)
    assert all(
        np.array_equal(np.asarray(back), one) for back, one in zip(tiles.to_pictures(images, mean, std), pixels, strict=True)
    )
    grey = tiles.to_images(pictures, (0.0,), (1.0,))
    assert grey.shape == (2, 1, 16, 16)
    assert np.array_equal((grey[0, 0] * 255).round().byte().numpy(), np.asarray(pictures[0].convert("L")))
    with pytest.raises(ValueError, match="1 channel or 3, but the model takes 2"):
        tiles.to_images(pictures, (0.0, 0.0), (1.0, 1.0))


def test_the_seed_decides_and_the_blocks_are_columns(weights: Path, photos: Path, tmp_path: Path) -> None:
    def draw(name: str, **options: Any) -> bytes:
        output = tmp_path / f"{name}.png"
        assert Reconstruct(images=(photos,), weights=str(weights), output=output, device="cpu", **options).run() == 0
        return output.read_bytes()

    assert draw("a") == draw("b", seed=0) != draw("c", seed=1)
    draw("d", blocks=(1, 3))
    assert size_of(tmp_path / "a.png")[0] - size_of(tmp_path / "d.png")[0] == 160 + 14


def test_a_device_that_is_not_there_is_refused(weights: Path, photos: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UsageError, match="gmml reconstruct: --device cuda, but"):
        Reconstruct(images=(photos,), weights=str(weights), output=tmp_path / "a.png", device="cuda").run()
