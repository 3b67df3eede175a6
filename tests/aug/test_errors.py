"""Promise 9: wrong input is an error that says who speaks, what came, what is allowed and what to do, before any work is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import random_images, same_bits, some_keys

NAN, INF = math.nan, math.inf
HALF = ga.Boxes(ratio=0.5)
SOME = ga.InBoxes(HALF, ga.Noise())
SIGNAL = ga.InBoxes(ga.Boxes(ratio=0.5, dims=1), ga.Noise())

# what is built, the error, what its message says: the speaker, then what to do
BUILT: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "neither ratio nor count": (lambda: ga.Boxes(), ValueError, r"Boxes: .*exactly one.*ratio=\(0"),
    "both ratio and count": (lambda: ga.Boxes(ratio=0.5, count=1), ValueError, r"Boxes: .*exactly one"),
    "ratio above 1": (lambda: ga.Boxes(ratio=1.1), ValueError, r"Boxes: ratio=1.1 .*0.0 to 1.0"),
    "ratio below 0": (lambda: ga.Boxes(ratio=-0.1), ValueError, r"Boxes: ratio=-0.1 .*0.0 to 1.0"),
    "ratio in percent": (lambda: ga.Boxes(ratio=(0, 35)), ValueError, r"Boxes: ratio=35.0 .*0.0 to 1.0"),
    "ratio low above high": (lambda: ga.Boxes(ratio=(0.5, 0.2)), ValueError, r"Boxes: ratio=\(0.5, 0.2\).*low <= high"),
    "ratio nan": (lambda: ga.Boxes(ratio=NAN), ValueError, r"Boxes: ratio=nan .*finite"),
    "ratio range with nan": (lambda: ga.Boxes(ratio=(0.0, NAN)), ValueError, r"Boxes: ratio=nan .*finite"),
    "ratio string": (lambda: ga.Boxes(ratio="0.5"), TypeError, r"Boxes: ratio='0.5' is not a number.*0.0 to 1.0"),  # type: ignore[arg-type]
    "ratio bool": (lambda: ga.Boxes(ratio=True), TypeError, r"Boxes: ratio=True is not a number"),
    "ratio of three": (lambda: ga.Boxes(ratio=(0.1, 0.2, 0.3)), ValueError, r"Boxes: ratio=.*3 entries.*pair"),  # type: ignore[arg-type]
    "ratio complex": (lambda: ga.Boxes(ratio=1j), TypeError, r"Boxes: ratio=1j is not a number"),  # type: ignore[arg-type]
    "ratio dict": (lambda: ga.Boxes(ratio={}), TypeError, r"Boxes: ratio=\{\} is not a number"),  # type: ignore[arg-type]
    "side negative": (lambda: ga.Boxes(ratio=0.5, side=-0.1), ValueError, r"Boxes: side=-0.1 .*0.0 to 1.0"),
    "side above 1": (lambda: ga.Boxes(ratio=0.5, side=(0.1, 1.5)), ValueError, r"Boxes: side=1.5 .*0.0 to 1.0"),
    "side in pixels": (lambda: ga.Boxes(ratio=0.5, side=16), ValueError, r"Boxes: side=16.0 .*0.0 to 1.0"),
    "side infinite": (lambda: ga.Boxes(ratio=0.5, side=(0.1, INF)), ValueError, r"Boxes: side=inf .*finite"),
    "side low above high": (lambda: ga.Boxes(ratio=0.5, side=(0.3, 0.2)), ValueError, r"Boxes: side=.*low <= high"),
    "side none": (lambda: ga.Boxes(ratio=0.5, side=None), TypeError, r"Boxes: side=None is not a number"),  # type: ignore[arg-type]
    "sides too small": (lambda: ga.Boxes(ratio=0.5, side=0.001), ValueError, r"Boxes: side=.*4096.*Raise side"),
    "sides of nothing": (lambda: ga.Boxes(ratio=0.5, side=0.0), ValueError, r"Boxes: side=.*Raise side"),
    "count 0": (lambda: ga.Boxes(count=0), ValueError, r"Boxes: count=0 .*1 to 4096"),
    "count too many": (lambda: ga.Boxes(count=5000), ValueError, r"Boxes: count=5000 .*1 to 4096"),
    "count float": (lambda: ga.Boxes(count=1.5), TypeError, r"Boxes: count=1.5 is not an integer"),  # type: ignore[arg-type]
    "count low above high": (lambda: ga.Boxes(count=(3, 2)), ValueError, r"Boxes: count=\(3, 2\).*low <= high"),
    "count of one entry": (lambda: ga.Boxes(count=(3,)), ValueError, r"Boxes: count=.*1 entries.*pair"),  # type: ignore[arg-type]
    "align 0": (lambda: ga.Boxes(ratio=0.5, align=0), ValueError, r"Boxes: align=0 .*1 or more"),
    "align float": (lambda: ga.Boxes(ratio=0.5, align=16.0), TypeError, r"Boxes: align=16.0 is not an integer"),  # type: ignore[arg-type]
    "align of three": (lambda: ga.Boxes(ratio=0.5, align=(16, 16, 2)), ValueError, r"Boxes: align=.* 3 numbers for 2 spatial axes"),
    "cells of one": (lambda: ga.Cells(size=(16,), ratio=0.5), ValueError, r"Cells: size=.* 1 numbers for 2 spatial axes"),
    "align pair of floats": (lambda: ga.Boxes(ratio=0.5, align=(1.0, 2)), TypeError, r"Boxes: align=1.0 is not an integer"),  # type: ignore[arg-type]
    "dims 4": (lambda: ga.Boxes(ratio=0.5, dims=4), ValueError, r"Boxes: dims=4 .*1 to 3"),
    "dims 0": (lambda: ga.Boxes(ratio=0.5, dims=0), ValueError, r"Boxes: dims=0 .*1 to 3"),
    "overshoot no bool": (lambda: ga.Boxes(ratio=0.5, overshoot=1), TypeError, r"Boxes: overshoot=1 .*True or False"),  # type: ignore[arg-type]
    "overshoot with count": (lambda: ga.Boxes(count=1, overshoot=True), ValueError, r"Boxes: overshoot.*ratio.*Leave it out"),
    "whole with count": (lambda: ga.Boxes(count=1, align=4, whole=True), ValueError, r"Boxes: whole.*ratio.*Leave it out"),
    "whole no bool": (lambda: ga.Boxes(ratio=0.5, whole=1), TypeError, r"Boxes: whole=1 .*True or False"),  # type: ignore[arg-type]
    "placement unknown": (
        lambda: ga.Boxes(ratio=0.5, placement="outside"),  # type: ignore[arg-type]
        ValueError,
        r"Boxes: placement='outside'.*'wrap', 'inside', 'origin'",
    ),
    "placement none": (lambda: ga.Boxes(ratio=0.5, placement=None), ValueError, r"Boxes: placement=None.*'wrap'"),  # type: ignore[arg-type]
    "boxes by position": (lambda: ga.Boxes(0.5), TypeError, r"positional"),  # type: ignore[call-arg]
    "unknown keyword": (lambda: ga.Boxes(ratios=0.5), TypeError, r"ratios"),  # type: ignore[call-arg]
    "unknown keyword of a preset": (lambda: ga.presets.gmml(ratio=0.5), TypeError, r"ratio"),  # type: ignore[call-arg]
    "constant nan": (lambda: ga.Constant(value=NAN), ValueError, r"Constant: value=nan .*finite"),
    "constant infinite": (lambda: ga.Constant(value=(0, INF)), ValueError, r"Constant: value=inf .*finite"),
    "constant low above high": (lambda: ga.Constant(value=(1, 0)), ValueError, r"Constant: value=.*low <= high"),
    "constant string": (lambda: ga.Constant(value="grey"), TypeError, r"Constant: value='grey' is not a number"),  # type: ignore[arg-type]
    "sigma 0": (lambda: ga.Blur(sigma=0.0), ValueError, r"Blur: sigma=0.0 .*0.001 to 1000"),
    "sigma negative": (lambda: ga.Blur(sigma=(-1.0, 1.0)), ValueError, r"Blur: sigma=-1.0 "),
    "sigma nan": (lambda: ga.Blur(sigma=(0.1, NAN)), ValueError, r"Blur: sigma=nan .*finite"),
    "kernel even": (lambda: ga.Blur(kernel=4), ValueError, r"Blur: kernel=.*odd"),
    "kernel range even": (lambda: ga.Blur(kernel=(3, 6)), ValueError, r"Blur: kernel=\(3, 6\) must be odd"),
    "kernel 0": (lambda: ga.Blur(kernel=0), ValueError, r"Blur: kernel=0 .*1 to 255"),
    "kernel float": (lambda: ga.Blur(kernel=3.0), TypeError, r"Blur: kernel=3.0 is not an integer"),  # type: ignore[arg-type]
    "alone unknown": (lambda: ga.Alien(alone="ignore"), ValueError, r"Alien: alone='ignore'.*'error' and 'skip'"),  # type: ignore[arg-type]
    "boxes that are none": (lambda: ga.InBoxes(0.5, ga.Noise()), TypeError, r"InBoxes: boxes=0.5 .*Boxes\(ratio"),  # type: ignore[arg-type]
    "boxes and fill swapped": (lambda: ga.InBoxes(ga.Noise(), HALF), TypeError, r"InBoxes: boxes=Noise\(\) is not a place. Give"),  # type: ignore[arg-type]
    "boxes class": (lambda: ga.InBoxes(ga.Boxes, ga.Noise()), TypeError, r"InBoxes: boxes="),  # type: ignore[arg-type]
    "fill class": (lambda: ga.InBoxes(HALF, ga.Noise), TypeError, r"InBoxes: .*Did you mean Noise\(\)"),  # type: ignore[arg-type]
    "fill string": (lambda: ga.InBoxes(HALF, "noise"), TypeError, r"InBoxes: 'noise' is not a corruption.*Noise\(\)"),  # type: ignore[arg-type]
    "p above 1": (lambda: ga.InBoxes(HALF, ga.Noise(), p=1.5), ValueError, r"InBoxes: p=1.5 .*0.0 to 1.0"),
    "p nan": (lambda: ga.InBoxes(HALF, ga.Noise(), p=NAN), ValueError, r"InBoxes: p=nan .*finite"),
    "p range": (lambda: ga.InBoxes(HALF, ga.Noise(), p=(0, 1)), TypeError, r"InBoxes: p=\(0, 1\) is not a number"),  # type: ignore[arg-type]
    "boxes in boxes": (lambda: ga.InBoxes(HALF, SOME), ValueError, r"InBoxes: boxes cannot be nested in boxes.*only fills"),
    "boxes deep in boxes": (
        lambda: ga.InBoxes(HALF, ga.Chain([ga.OneOf([SOME])])),
        ValueError,
        r"InBoxes: boxes cannot be nested in boxes",
    ),
    "empty chain": (lambda: ga.Chain([]), ValueError, r"Chain: .*empty.*at least one"),
    "empty choice": (lambda: ga.OneOf([]), ValueError, r"OneOf: .*empty.*at least one"),
    "a class in a chain": (lambda: ga.Chain([ga.Noise]), TypeError, r"Chain: .*Did you mean Noise\(\)"),  # type: ignore[list-item]
    "boxes in a chain": (lambda: ga.Chain([HALF]), TypeError, r"Chain: Boxes.*not a corruption"),  # type: ignore[list-item]
    "none in a choice": (lambda: ga.OneOf([ga.Noise(), None]), TypeError, r"OneOf: None is not a corruption"),  # type: ignore[list-item]
    "a fill instead of a list": (lambda: ga.Chain(ga.Noise()), TypeError, r"Chain: .*not a list.*Chain\(\[Noise\(\)\]\)"),  # type: ignore[arg-type]
    "a string instead of a list": (lambda: ga.Chain("noise"), TypeError, r"Chain: .*not a list"),  # type: ignore[arg-type]
    "too few weights": (
        lambda: ga.OneOf([ga.Noise(), ga.Zeros()], weights=[1]),
        ValueError,
        r"OneOf: weights=.*one number per part",
    ),
    "too many weights": (lambda: ga.OneOf([ga.Noise()], weights=[1, 2]), ValueError, r"OneOf: weights=.*one number per part"),
    "weights of zero": (lambda: ga.OneOf([ga.Noise()], weights=[0]), ValueError, r"OneOf: weights=.*not all 0"),
    "weight negative": (lambda: ga.OneOf([ga.Noise(), ga.Zeros()], weights=[2, -1]), ValueError, r"OneOf: weights=-1.0 "),
    "weight nan": (lambda: ga.OneOf([ga.Noise()], weights=[NAN]), ValueError, r"OneOf: weights=nan .*finite"),
    "weight string": (lambda: ga.OneOf([ga.Noise()], weights="1"), TypeError, r"OneOf: weights='1' is not a number"),  # type: ignore[arg-type]
    "weights no list": (lambda: ga.OneOf([ga.Noise()], weights=1.0), TypeError, r"OneOf: weights=1.0"),  # type: ignore[arg-type]
    "budget above 1": (lambda: ga.Chain([SOME], budget=60), ValueError, r"Chain: budget=60.0 .*0.0 to 1.0"),
    "budget nan": (lambda: ga.Chain([SOME], budget=NAN), ValueError, r"Chain: budget=nan .*finite"),
    "budget string": (lambda: ga.Chain([SOME], budget="0.6"), TypeError, r"Chain: budget='0.6' is not a number"),  # type: ignore[arg-type]
    "dims 5": (lambda: ga.Chain([ga.Noise()], dims=5), ValueError, r"Chain: dims=5 .*1 to 3"),
    "mixed dims": (lambda: ga.Chain([SOME, SIGNAL]), ValueError, r"Boxes: dims=1 .*dims=2.*same dims"),
    "dims other than those of the boxes": (lambda: ga.Chain([SOME], dims=3), ValueError, r"dims=.*same dims"),
    "values unknown": (lambda: ga.Chain([SOME], values="imagenet"), ValueError, r'Chain: values=.*"unit"'),  # type: ignore[arg-type]
    "values of three": (lambda: ga.Chain([SOME], values=((0.5,),) * 3), ValueError, r"Chain: values=.*\(mean, std\)"),  # type: ignore[arg-type]
    "values of two lengths": (
        lambda: ga.Chain([SOME], values=((0.5,), (0.1, 0.2))),
        ValueError,
        r"Chain: values has 1 means and 2",
    ),
    "values without numbers": (lambda: ga.Chain([SOME], values=((), ())), ValueError, r"Chain: values has 0 means"),
    "std 0": (lambda: ga.Chain([SOME], values=((0.5,), (0.0,))), ValueError, r"Chain: values \(std\)=0.0 "),
    "mean nan": (lambda: ga.Chain([SOME], values=((NAN,), (0.1,))), ValueError, r"Chain: values \(mean\)=nan .*finite"),
    "values numbers": (lambda: ga.Chain([SOME], values=(0.5, 0.2)), ValueError, r"Chain: values=.*\(mean, std\)"),  # type: ignore[arg-type]
    "two value ranges": (
        lambda: ga.Chain([ga.Chain([SOME], values="unit")], values="normalised"),
        ValueError,
        r"Chain: values='unit' inside.*once",
    ),
    "more than 255 steps": (lambda: ga.Chain([ga.Noise()] * 256), ValueError, r"Chain: more than 255 steps.*several"),
    "zeros of a preset": (lambda: ga.presets.gmml(zeros=2), ValueError, r"presets.gmml: zeros=2.0 .*0.0 to 1.0"),
    "keys of a float seed": (lambda: ga.keys(0.5, 0, [1]), TypeError, r"keys: seed=0.5 is not an integer"),  # type: ignore[arg-type]
    "keys of a bool epoch": (lambda: ga.keys(0, True, [1]), TypeError, r"keys: epoch=True is not an integer"),
    "keys of floats": (lambda: ga.keys(0, 0, torch.rand(3)), TypeError, r"keys: index holds torch.float32.*integer number"),
    "keys of a table": (
        lambda: ga.keys(0, 0, torch.zeros(2, 3, dtype=torch.int64)),
        ValueError,
        r"keys: .*\(2, 3\).*one integer per",
    ),
    "keys of nothing": (lambda: ga.keys(0, 0, None), TypeError, r"keys: index is None.*Give the integer"),  # type: ignore[arg-type]
    "keys of a generator": (lambda: ga.keys(0, 0, (n for n in range(3))), TypeError, r"keys: index is <gen.*a list"),  # type: ignore[arg-type]
    "keys of a set": (lambda: ga.keys(0, 0, {1, 2}), TypeError, r"keys: index is \{1, 2\}.*a list"),  # type: ignore[arg-type]
    "keys of names": (lambda: ga.keys(0, 0, ["a"]), TypeError, r"keys: index is \['a'\], not a list of integers.*Give the"),  # type: ignore[list-item]
    "keys of a word": (lambda: ga.keys(0, 0, "12"), TypeError, r"keys: index is '12'.*a list"),  # type: ignore[arg-type]
    "keys beyond 64 bits": (lambda: ga.keys(0, 0, [1 << 63]), TypeError, r"keys: index is .*up to 64 bits.*Give the"),
    "keys of no image": (lambda: ga.keys(0, 0, []), ValueError, r"keys: index is empty.*skip empty batches"),
    "too few visits": (
        lambda: ga.keys(0, 0, [1, 2], visit=[0]),
        ValueError,
        r"keys: got 1 visits for 2 indices.*Give one for each",
    ),
    "visits of floats": (lambda: ga.keys(0, 0, [1], visit=0.5), TypeError, r"keys: visit=0.5 is not an integer"),  # type: ignore[arg-type]
    "a ratio in a table": (lambda: ga.Boxes(ratio=torch.rand(2, 2)), TypeError, r"Boxes: ratio=\[.*\] is not a number"),  # type: ignore[arg-type]
    "a share of several": (
        lambda: ga.InBoxes(HALF, ga.Zeros(), p=torch.rand(2)),  # type: ignore[arg-type]
        TypeError,
        r"InBoxes: p is Tensor torch.float32 of",
    ),
    "a count of floats": (lambda: ga.Boxes(count=torch.rand(2)), TypeError, r"Boxes: count=.* is not an integer"),  # type: ignore[arg-type]
    "constant of three": (lambda: ga.Constant(value=torch.rand(3)), ValueError, r"Constant: value=.*3 entries.*colour=\(0"),  # type: ignore[arg-type]
    "keys of one number": (lambda: ga.keys(0, 0, torch.tensor(3)), ValueError, r"keys: .*\(\).*shape \(B,\)"),
}


@pytest.mark.parametrize("name", BUILT)
def test_what_cannot_work_cannot_be_built(name: str) -> None:
    build, kind, message = BUILT[name]
    with pytest.raises(kind, match=message):
        build()


def shaped(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.zeros(shape, dtype=dtype)


GOOD = random_images((4, 3, 16, 16))
ALIEN = ga.InBoxes(HALF, ga.Alien())
KNOWN = ga.Chain([SOME], values=((0.5, 0.5), (0.2, 0.2)))
ALIGNED = ga.InBoxes(ga.Boxes(ratio=0.5, align=16), ga.Noise())

# the corruption, the images, options of the call, the error, what its message says
CALLED: dict[str, tuple[ga.Corruption, Any, dict[str, Any], type[Exception], str]] = {
    "an unbatched image": (SOME, shaped(3, 16, 16), {}, ValueError, r"\(3, 16, 16\).*\(B, C, H, W\).*images\[None\].*dims=1"),
    "a volume": (SOME, shaped(2, 3, 8, 8, 8), {}, ValueError, r"\(2, 3, 8, 8, 8\).*\(B, C, H, W\).*dims=3"),
    "a matrix": (SOME, shaped(16, 16), {}, ValueError, r"\(16, 16\).*\(B, C, H, W\)"),
    "a number": (SOME, torch.tensor(1.0), {}, ValueError, r"\(B, C, H, W\)"),
    "images for signals": (SIGNAL, GOOD, {}, ValueError, r"\(4, 3, 16, 16\).*\(B, C, L\).*dims=2"),
    "an empty batch": (SOME, shaped(0, 3, 16, 16), {}, ValueError, r"\(0, 3, 16, 16\).*empty axis.*skip"),
    "no channels": (SOME, shaped(4, 0, 16, 16), {}, ValueError, r"empty axis"),
    "no height": (SOME, shaped(4, 3, 0, 16), {}, ValueError, r"empty axis"),
    "no width": (SOME, shaped(4, 3, 16, 0), {}, ValueError, r"empty axis"),
    **{
        f"images of {dtype}": (SOME, shaped(4, 3, 16, 16, dtype=dtype), {}, TypeError, rf"images are {dtype}\..*uint8.*convert")
        for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64)
    },
    "a list": (SOME, [GOOD[0], GOOD[1]], {}, TypeError, r"images must be a tensor.*not list\..*torch.stack"),
    "none": (SOME, None, {}, TypeError, r"images must be a tensor.*not NoneType"),
    "a grid coarser than the image": (ALIGNED, shaped(4, 3, 12, 20), {}, ValueError, r"Boxes: align=16.*\(12, 20\).*1 to 12"),
    "values of two channels": (
        KNOWN,
        GOOD,
        {},
        ValueError,
        r"values=\(mean, std\) has 2 channels, but the images have 3.*per channel",
    ),
    "a batch of one": (ALIEN, GOOD[:1], {}, ValueError, r"Alien: .*another image.*holds 1.*drop_last"),
    "donors of another size": (
        ALIEN,
        GOOD,
        {"donors": shaped(4, 3, 16, 17)},
        ValueError,
        r"donors are .*\(4, 3, 16, 17\).*same dtype",
    ),
    "donors of other channels": (ALIEN, GOOD, {"donors": shaped(4, 1, 16, 16)}, ValueError, r"donors are .*same dtype, channels"),
    "donors of another dtype": (ALIEN, GOOD, {"donors": GOOD.half()}, ValueError, r"donors are torch.float16.*torch.float32"),
    "no donors": (ALIEN, GOOD, {"donors": GOOD[:0]}, ValueError, r"donors are .*at least one"),
    "a list of donors": (ALIEN, GOOD, {"donors": [GOOD[0]]}, TypeError, r"donors must be a tensor.*list"),
    "donors elsewhere": (
        ALIEN,
        GOOD,
        {"donors": GOOD.to("meta")},
        ValueError,
        r"donors must be on the device of the images, cpu, not on meta",
    ),
    "keys elsewhere": (
        SOME,
        GOOD,
        {"keys": some_keys(4).to("meta")},
        ValueError,
        r"keys must be on the device of the images, cpu, not on meta",
    ),
    "too few keys": (SOME, GOOD, {"keys": some_keys(3)}, ValueError, r"keys have shape \(3,\).*4 images.*one (key )?per image"),
    "a table of keys": (
        SOME,
        GOOD,
        {"keys": some_keys(4)[:, None]},
        ValueError,
        r"keys have shape \(4, 1\).*4 images.*one (key )?per image",
    ),
    "keys of int32": (
        SOME,
        GOOD,
        {"keys": some_keys(4).int()},
        TypeError,
        r"keys must be an int64 tensor.*not torch.int32.*gmml_aug.keys",
    ),
    "keys of floats": (SOME, GOOD, {"keys": torch.rand(4)}, TypeError, r"keys must be an int64 tensor.*float32"),
    "a list of keys": (SOME, GOOD, {"keys": [1, 2, 3, 4]}, TypeError, r"keys must be an int64 tensor.*not list"),
    "a seed for a generator": (SOME, GOOD, {"generator": 3}, TypeError, r"gmml_aug: .*generator.*int"),
    "another backend": (SOME, GOOD, {"backend": "cuda"}, ValueError, r"backend='cuda' is unknown.*'reference'.*'triton'"),
    "fused kernels for float64": (SOME, GOOD.double(), {"backend": "fused"}, ValueError, r'fused" cannot.*cpu.*="auto"'),
    "out of another shape": (SOME, GOOD, {"out": shaped(4, 3, 16, 15)}, ValueError, r"out is .*\(4, 3, 16, 15\).*torch.empty_like"),
    "out of another dtype": (SOME, GOOD, {"out": GOOD.double()}, ValueError, r"out is torch.float64.*torch.empty_like"),
    "out elsewhere": (
        SOME,
        GOOD,
        {"out": GOOD.to("meta")},
        ValueError,
        r"out must be on the device of the images, cpu, not on meta",
    ),
    "out no tensor": (SOME, GOOD, {"out": True}, TypeError, r"out must be a tensor"),
    "out of one repeated image": (SOME, GOOD, {"out": shaped(1, 3, 16, 16).expand(4, -1, -1, -1)}, ValueError, r"gmml_aug: out .*"),
    "an unknown option": (SOME, GOOD, {"seed": 3}, TypeError, r"seed"),
}


@pytest.mark.parametrize("name", CALLED)
def test_a_call_that_cannot_work_is_an_error_before_any_work(name: str) -> None:
    corrupt, images, options, kind, message = CALLED[name]
    if "keys" not in options and "generator" not in options:
        options = {**options, "generator": torch.Generator().manual_seed(1)}
    before = torch.get_rng_state(), torch.Generator().manual_seed(1).get_state()
    content = images.clone() if isinstance(images, Tensor) else images
    with pytest.raises(kind, match=message):
        corrupt(images, **options)
    assert torch.equal(torch.get_rng_state(), before[0])
    generator = options.get("generator")
    assert not isinstance(generator, torch.Generator) or torch.equal(generator.get_state(), before[1])
    assert not isinstance(images, Tensor) or same_bits(images, content)


def test_messages_name_the_speaker() -> None:
    for corrupt, images, options, kind, _ in CALLED.values():
        if "seed" not in options:
            with pytest.raises(kind, match=r"^(gmml_aug|Boxes|Alien): "):
                corrupt(images, **options)


def test_keys_and_a_generator_together_are_an_error(generator: torch.Generator) -> None:
    keys = some_keys(4).to(generator.device)
    for call in (
        lambda: SOME(GOOD.to(generator.device), keys=keys, generator=generator),
        lambda: SOME.sample(GOOD.shape, keys=keys, generator=generator),
    ):
        with pytest.raises(ValueError, match=r"both keys and a generator.*one of them"):
            call()


def test_a_generator_on_another_device_is_an_error() -> None:
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match=r"generator must be on the device of the images, meta, not on cpu"):
            SOME(GOOD.to("meta"), generator=torch.Generator())
        return
    with pytest.raises(ValueError, match=r"generator must be on the device of the images, cpu, not on cuda"):
        SOME(GOOD, generator=torch.Generator("cuda"))


@pytest.mark.parametrize(
    ("shape", "options", "kind", "message"),
    [
        ((4, 3, 16), {}, ValueError, r"\(4, 3, 16\).*\(B, C, H, W\)"),
        ((4, 3, 16, 0), {}, ValueError, r"empty axis"),
        ((4, 3, -16, 16), {}, ValueError, r"empty axis"),
        ((4, 3, 16.5, 16), {}, TypeError, r"gmml_aug: .*shape"),
        (16, {}, TypeError, r"gmml_aug: .*shape"),
        ((4, 3, 16, 16), {"bank": 0}, ValueError, r"sample: bank=0 .*1 or more"),
        ((4, 3, 16, 16), {"bank": 2.5}, TypeError, r"sample: bank=2.5 is not an integer"),
        (
            (4, 3, 16, 16),
            {"keys": some_keys(4), "device": "meta"},
            ValueError,
            r"keys must be on the device of the images, meta, not on cpu",
        ),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_sampled_is_an_error(
    shape: Any, options: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        ALIEN.sample(shape, **options)


def test_a_plan_on_another_device_is_an_error() -> None:
    plan = SOME.sample(GOOD.shape, keys=some_keys(4)).to("meta")
    with pytest.raises(ValueError, match=r"plan must be on the device of the images, cpu, not on meta"):
        SOME.apply(GOOD, plan)


MASK = torch.zeros(2, 1, 8, 8, dtype=torch.bool)


# the mask, the patch size, options, the error, what its message says
PATCHED: dict[str, tuple[Any, Any, dict[str, Any], type[Exception], str]] = {
    "a mask of floats": (MASK.float(), 4, {}, TypeError, r"patch_mask: .*bool.*float32"),
    "a list": ([True], 4, {}, TypeError, r"patch_mask: .*bool.*list"),
    "no channel axis": (MASK[:, 0], 4, {}, ValueError, r"patch_mask: .*\(2, 8, 8\).*\(B, 1, \*S\)"),
    "three channels": (MASK.expand(2, 3, 8, 8), 4, {}, ValueError, r"patch_mask: .*\(2, 3, 8, 8\).*\(B, 1, \*S\)"),
    "patch size 0": (MASK, 0, {}, ValueError, r"patch_mask: patch_size=0 .*1 or more"),
    "patch size float": (MASK, 4.0, {}, TypeError, r"patch_mask: patch_size"),
    "patch size of three axes": (MASK, (4, 4, 4), {}, ValueError, r"patch_mask: patch_size=\(4, 4, 4\) for 2"),
    "form unknown": (MASK, 4, {"form": "mean"}, ValueError, r"patch_mask: form='mean'.*'share', 'bool', 'flat'"),
    "threshold above 1": (MASK, 4, {"threshold": 2.0}, ValueError, r"patch_mask: threshold=2.0 "),
    "threshold nan": (MASK, 4, {"threshold": math.nan}, ValueError, r"patch_mask: threshold=nan "),
}


@pytest.mark.parametrize("name", PATCHED)
def test_patch_mask_refuses_what_is_no_mask(name: str) -> None:
    mask, patch, options, kind, message = PATCHED[name]
    with pytest.raises(kind, match=message):
        ga.patch_mask(mask, patch, **options)
