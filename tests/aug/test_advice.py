"""What an error or a warning says to do works, and loses nothing: it is carried out as printed, and the images are looked at."""

from __future__ import annotations

import re
import warnings
from typing import Any

import PIL.Image
import pytest
import torch
import torchvision.transforms.v2
from torch import Tensor

import gmml_aug as ga
from tests.helpers import random_images, some_keys

HALF = ga.Boxes(ratio=0.5)
SOME = ga.InBoxes(HALF, ga.Zeros())


def refused(corrupt: ga.Corruption, images: Any, **options: Any) -> str:
    """The words of the error."""
    with pytest.raises((TypeError, ValueError)) as error:
        corrupt(images, **options)
    return str(error.value)


def followed(advice: str, **names: Any) -> Any:
    """What the code in an advice gives."""
    return eval(advice, {"torch": torch, "ga": ga, **vars(ga), **names})


INTEGERS = [torch.int8, torch.int16, torch.uint16, torch.int32, torch.uint32, torch.int64, torch.bool]


@pytest.mark.parametrize("dtype", INTEGERS)
def test_other_numbers_are_converted_without_loss(dtype: torch.dtype) -> None:
    low, high = (0, 1) if dtype == torch.bool else (max(torch.iinfo(dtype).min, -(1 << 52)), min(torch.iinfo(dtype).max, 1 << 52))
    ends = torch.tensor([low, low + 1, 0, 1, high - 1, high], dtype=torch.int64)
    images = ends.repeat(8).view(1, 1, 6, 8).transpose(2, 3).to(dtype)
    message = refused(SOME, images)
    advice = re.search(r"convert with (images\.\w+\(\))", message)
    assert advice is not None, message
    converted = followed(advice[1], images=images)
    assert torch.equal(converted.to(torch.int64), images.to(torch.int64))
    found = SOME(converted, keys=some_keys(1))
    assert torch.equal(found.images, converted.masked_fill(found.mask, 0))
    if dtype == torch.bool:
        assert 'values="unit"' in message
    else:
        assert "values=(mean, std)" in message
        noisy = ga.Chain([ga.InBoxes(HALF, ga.Noise(per="pixel"))], values=((100.0,), (50.0,)))(converted, keys=some_keys(1))
        assert noisy.mask.any()


def test_complex_and_quantised_images_are_converted_without_loss() -> None:
    images = torch.complex(random_images((2, 3, 8, 8)), random_images((2, 3, 8, 8), seed=1))
    advice = re.search(r"convert with (torch\.cat\(.*?\), dim=1\)|torch\.cat\(\[.*?\], dim=1\))", refused(SOME, images))
    assert advice is not None
    parts = followed(advice[1], images=images)
    assert torch.equal(torch.complex(parts[:, :3], parts[:, 3:]), images)
    assert SOME(parts).images.shape == (2, 6, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stored = torch.quantize_per_tensor(images.real, 0.1, 0, torch.qint8)
    advice = re.search(r"convert with (images\.dequantize\(\))", refused(SOME, stored))
    assert advice is not None
    assert SOME(followed(advice[1], images=stored)).mask.any()


@pytest.mark.parametrize(("shape", "count"), [((8, 9), 1), ((3, 8, 9), 2), ((2, 5, 3, 8, 9), 1), ((2, 2, 5, 3, 8, 9), 1)], ids=str)
def test_axes_are_mended_as_the_error_says(shape: tuple[int, ...], count: int) -> None:
    images = random_images(shape)
    message = refused(SOME, images)
    codes = re.findall(r"images(?:\[[^\]]*\]|\.flatten\([^)]*\))", message.split("spatial axes:")[1])
    assert len(codes) >= count, message
    for code in codes:
        found = followed(code, images=images)
        assert torch.equal(found.flatten(), images.flatten())
        assert SOME(found).mask.any()
    for dims in re.findall(r"Boxes\(dims=(\d)\)", message):
        with warnings.catch_warnings(action="ignore"):  # of clips, see below
            assert ga.InBoxes(ga.Boxes(ratio=0.5, dims=int(dims)), ga.Zeros())(images).images.shape == shape


def test_clips_in_another_order_of_axes_are_told_and_others_are_not() -> None:
    volumes = ga.InBoxes(ga.Boxes(ratio=0.3, dims=3, side=(0.2, 0.6)), ga.Zeros())
    clips = random_images((2, 8, 3, 32, 32))
    with pytest.warns(UserWarning, match=r"gmml_aug: .*\(2, 8, 3, 32, 32\).*clips \(B, T, C, H, W\)") as told:
        volumes(clips)
    message = str(told[0].message)
    codes = re.findall(r"images\.\w+\([^)]*\)", message)
    assert len(codes) == 2
    together = volumes(followed(codes[0], images=clips), keys=some_keys(2)).mask
    assert together.shape == (2, 1, 8, 32, 32)  # a mask for all colours of a pixel
    assert SOME(followed(codes[1], images=clips)).mask.shape == (16, 1, 32, 32)
    assert "clips (B, T, C, H, W)" in refused(SOME, clips)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for shape in (
            (2, 3, 8, 32, 32),
            (2, 3, 3, 32, 32),
            (2, 1, 3, 32, 32),
            (2, 1, 16, 16, 16),
            (2, 4, 16, 16, 16),
            (2, 8, 3, 3, 3),
        ):
            volumes(torch.rand(shape))
        volumes(clips)  # once for a shape


def test_nested_images_are_padded_as_the_error_says() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.nested.nested_tensor([torch.ones(3, 8, 8), torch.ones(3, 9, 6)])
        message = refused(SOME, images)
        advice = re.search(r"torch\.nested\.to_padded_tensor\([^)]*\)", message)
        assert advice is not None
        padded: Tensor = followed(advice[0], images=images)
    found = SOME(padded, lengths=[(8, 8), (9, 6)])
    assert found.mask.flatten(1).sum(1).tolist() == [32, 27]
    assert not bool((found.mask & (padded[:, :1] == 0)).any())


@pytest.mark.parametrize("layout", ["to_sparse", "to_mkldnn"])
def test_other_layouts_are_converted_as_the_error_says(layout: str) -> None:
    images = random_images((2, 3, 8, 8))
    given = getattr(images, layout)()
    advice = re.search(r"convert with (images\.to_dense\(\))", refused(SOME, given))
    assert advice is not None
    assert torch.equal(followed(advice[1], images=given), images)


def test_what_is_no_tensor_becomes_one_as_the_error_says() -> None:
    images = random_images((2, 3, 8, 9))
    for given, codes in (
        ([*images], 1),
        (tuple(images), 1),
        (images.numpy(), 1),
        (images.movedim(1, -1).numpy(), 1),  # channels last, as OpenCV, imageio and scikit-image have them
    ):
        message = refused(SOME, given)
        found = re.findall(r"torch\.(?:stack|as_tensor)\(images\)(?:\.permute\(0, 3, 1, 2\))?", message)
        assert len(found) == codes, message
        assert torch.equal(followed(found[0], images=given), images)
    picture = PIL.Image.new("RGB", (9, 8), (1, 2, 3))
    message = refused(SOME, picture)
    assert "not Image" in message
    advice = re.search(r"torchvision\.transforms\.v2\.functional\.to_image\(picture\)", message)
    assert advice is not None
    assert SOME(followed(advice[0], picture=picture, torchvision=torchvision)[None]).mask.any()
    assert "Stack" not in refused(SOME, "a.jpg")


def test_channels_that_come_last_are_put_first_as_the_error_says() -> None:
    images = random_images((2, 3, 8, 9))
    statistics = ((0.5, 0.4, 0.3), (0.2, 0.2, 0.2))
    corrupt = ga.Chain([SOME], values=statistics)
    message = refused(corrupt, images.movedim(1, -1))
    advice = re.search(r"images\.movedim\(-1, 1\)", message)
    assert advice is not None
    assert torch.equal(followed(advice[0], images=images.movedim(1, -1)), images)
    assert "movedim" not in refused(corrupt, random_images((2, 4, 8, 9)))


def test_a_single_image_among_transforms_is_sent_to_the_adapter() -> None:
    image = random_images((3, 8, 9))
    message = refused(SOME, image)
    advice = re.search(r"torchvision_adapter\.Corrupt\(corrupt\)", message)
    assert advice is not None
    found, mask = followed(f"ga.{advice[0]}", corrupt=SOME)(image)
    assert found.shape == image.shape
    assert mask.any()
    assert "torchvision" not in refused(SOME, random_images((8, 9)))


def test_a_batch_of_one_is_mended_in_every_way_that_the_error_says() -> None:
    images = random_images((1, 3, 8, 8))
    message = refused(ga.InBoxes(HALF, ga.Alien()), images)
    for fill in re.findall(r'Alien\(alone="skip"\)|Noise|Grey', message):
        made = followed(fill if fill.endswith(")") else f"{fill}()")
        out = ga.InBoxes(HALF, made)(images)
        assert bool(out.mask.any()) is (not fill.startswith("Alien"))
    assert ga.InBoxes(HALF, ga.Alien())(images, donors=random_images((2, 3, 8, 8), seed=1)).mask.any()
    preset = re.search(r'presets\.gmml\(alone="skip"\)', message)
    assert preset is not None
    assert followed(preset[0])(images).images.shape == images.shape
    assert "corrupt the batch instead" in message


def test_one_value_a_channel_is_given_as_the_error_says() -> None:
    with pytest.raises(ValueError, match="colour=") as error:
        ga.Constant(value=torch.rand(3))  # type: ignore[arg-type]
    advice = re.search(r"Constant\(colour=\([^)]*\)\)", str(error.value))
    assert advice is not None
    found = ga.InBoxes(HALF, followed(advice[0]))(torch.zeros(1, 3, 8, 8))
    assert found.images.flatten(2).amax(2)[0].tolist() == pytest.approx([0.485, 0.456, 0.406])


def test_a_buffer_is_made_as_the_error_says() -> None:
    images = random_images((2, 3, 8, 8))
    message = refused(SOME, images, out=images[:1].expand(2, 3, 8, 8))
    advice = re.search(r"torch\.empty_like\(images\)", message)
    assert advice is not None
    out = followed(advice[0], images=images)
    assert SOME(images, out=out).images is out


def test_a_range_of_random_numbers_is_made_as_the_error_says() -> None:
    chance = ga.Chance(some_keys(3), 0, (3, 1, 4, 4), 3, from_batch=True)
    with pytest.raises(
        TypeError, match=r"chance\.uniform: the shape is \(-1\.0, 1\.0\).*low \+ \(high - low\) \* chance\.uniform\(\)"
    ):
        chance.uniform(-1.0, 1.0)  # type: ignore[arg-type]
    low, high = -1.0, 1.0
    drawn = low + (high - low) * chance.uniform()
    assert drawn.shape == (3,)
    assert -1 <= float(drawn.min()) <= float(drawn.max()) < 1
