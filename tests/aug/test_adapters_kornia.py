"""`kornia_adapter.Corrupt` in kornia's container: replay to the bit, chance per sample, and the mask."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import random_images, same_bits, some_keys

pytest.importorskip("kornia")

import kornia.augmentation as aug

Corrupt: Any = ga.kornia_adapter.Corrupt
NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())
MIXED = ga.presets.gmml()


def changed(found: Tensor, images: Tensor) -> Tensor:
    return (found != images).any(1, keepdim=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_batch_is_corrupted_as_without_kornia(dtype: torch.dtype, device: torch.device, generator: torch.Generator) -> None:
    images = random_images((4, 3, 32, 32), dtype).to(device)
    kept = images.clone()
    corrupt = Corrupt(MIXED, generator=generator)
    found = aug.AugmentationSequential(corrupt)(images)
    wanted = MIXED(images, generator=torch.Generator(device).manual_seed(2024))
    assert same_bits(found, wanted.images)
    assert same_bits(corrupt.mask(), wanted.mask)
    assert same_bits(images, kept)


@pytest.mark.parametrize("p", [1.0, 0.5])
def test_parameters_replay_to_the_bit(p: float, tmp_path: Path) -> None:
    images = random_images((8, 3, 32, 32))
    flow: Any = aug.AugmentationSequential(
        aug.RandomHorizontalFlip(p=0.5), Corrupt(MIXED, p=p, marks=True), aug.RandomRotation(20.0), data_keys=["input", "mask"]
    )
    zeros = torch.zeros(8, 1, 32, 32)
    first = flow(images, zeros)
    params = flow._params
    mask = flow[1].mask()
    torch.save([(item.name, item.data) for item in params], tmp_path / "params.pt")
    other = flow(images, zeros)  # the last call is another one now
    assert not torch.equal(first[0], other[0])
    from kornia.augmentation.container.params import ParamItem

    stored = [ParamItem(name, data) for name, data in torch.load(tmp_path / "params.pt")]
    for again in (flow(images, zeros, params=params), flow(images, zeros, params=stored)):
        assert same_bits(again[0], first[0])
        assert same_bits(again[1], first[1])
    assert torch.equal(flow[1].mask(params[1].data), mask)


def test_masks_boxes_and_labels_pass_through() -> None:
    flow: Any = aug.AugmentationSequential(Corrupt(MIXED, p=0.7), data_keys=["input", "mask", "bbox_xyxy", "keypoints", "class"])
    images, seg = random_images((4, 3, 32, 32)), torch.rand(4, 2, 32, 32)
    boxes, points = torch.tensor([[[1.0, 2.0, 8.0, 9.0]]]).repeat(4, 1, 1), torch.rand(4, 5, 2)
    found = flow(images, seg, boxes, points, torch.arange(4))
    assert not torch.equal(found[0], images)
    for one, other in zip(found[1:], (seg, boxes, points, torch.arange(4)), strict=True):
        assert torch.equal(one, other)


def test_marks_travel_with_later_geometry() -> None:
    corrupt = Corrupt(NOISE, p=0.5, marks=True)
    flow: Any = aug.AugmentationSequential(
        corrupt, aug.RandomHorizontalFlip(p=1.0), aug.RandomCrop((20, 20), cropping_mode="slice"), data_keys=["input", "mask"]
    )
    images = random_images((16, 3, 32, 32))
    found, marks = flow(images, torch.zeros(16, 1, 32, 32))
    clean, nothing = flow(images, torch.zeros(16, 1, 32, 32), params=[p for p in flow._params if "Corrupt" not in p.name])
    assert torch.equal(changed(found, clean), marks.bool())
    assert marks.flatten(1).any(1).tolist() == (corrupt._params["batch_prob"] > 0.5).tolist()
    assert not nothing.any()


def test_masks_in_a_list_are_marked_like_their_images() -> None:
    corrupt = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.3), ga.Alien()), marks=True)
    flow: Any = aug.AugmentationSequential(corrupt, data_keys=["input", "mask"])
    images = random_images((4, 3, 32, 32))
    _, marks = flow(images, [torch.zeros(1, 32, 32) for _ in range(4)])
    assert torch.equal(torch.stack([mark.reshape(1, 32, 32) for mark in marks]).bool(), corrupt.mask())


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("layout", ["BTCHW", "BCTHW"])
def test_an_alien_of_a_clip_is_the_same_frame_of_one_other_clip(same: bool, layout: str) -> None:
    clips = random_images((4, 5, 3, 16, 16))
    corrupt = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.3), ga.Alien()))
    flow: Any = aug.VideoSequential(corrupt, data_format=layout, same_on_frame=same)
    given = clips if layout == "BTCHW" else clips.transpose(1, 2)
    found = flow(given)
    assert torch.equal(flow(given, params=flow._params), found)
    found = found if layout == "BTCHW" else found.transpose(1, 2)
    mask = corrupt.mask().unflatten(0, (4, 5))
    assert torch.equal((found != clips).any(2, keepdim=True), mask)
    donors = torch.zeros(4, 5, dtype=torch.int64)
    for clip in range(4):
        for frame in range(5):
            touched = mask[clip, frame].expand(3, 16, 16)
            same_pixels = [bool((found[clip, frame] == other[frame])[touched].all()) for other in clips]
            assert sum(same_pixels) == 1
            donors[clip, frame] = same_pixels.index(True)
    assert (donors != torch.arange(4)[:, None]).all()
    assert bool((donors == donors[:, :1]).all()) == same
    assert torch.equal(mask, mask[:, :1].expand_as(mask)) == same


@pytest.mark.parametrize("same", [True, False])
def test_clips_take_p_banks_marks_and_one_key_for_all(same: bool) -> None:
    clips, bank = random_images((3, 4, 3, 16, 16)), random_images((6, 3, 16, 16), seed=1)
    corrupt = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.3), ga.Alien()), p=0.5, donors=bank, marks=True)
    flow: Any = aug.AugmentationSequential(aug.VideoSequential(corrupt, same_on_frame=same), data_keys=["input", "mask"])
    found, marks = flow(clips, torch.zeros(3, 4, 1, 16, 16))
    assert torch.equal((found != clips).any(2, keepdim=True), marks.bool())
    for batch in (Corrupt(NOISE, same_on_batch=True), Corrupt(NOISE)):
        aug.VideoSequential(batch, same_on_frame=same)(clips)
        masks = torch.unique(batch.mask().flatten(1), dim=0)
        assert len(masks) == (1 if batch.same_on_batch else 3 if same else 12)  # kornia shares the draw of frames, too
    with pytest.raises(ValueError, match=r"Alien: .*batch holds 1"):
        aug.VideoSequential(Corrupt(ga.InBoxes(ga.Boxes(ratio=0.3), ga.Alien())), same_on_frame=same)(clips[:1])
    alone = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.3), ga.Alien(alone="skip")))
    assert torch.equal(aug.VideoSequential(alone, same_on_frame=same)(clips[:1]), clips[:1])
    assert not alone.mask().any()


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:")  # deprecated from torch 2.9 on
def test_a_trace_would_keep_one_draw_and_is_refused_but_an_export_draws_anew() -> None:
    images = random_images((2, 3, 16, 16))
    with pytest.raises(TypeError, match=r"kornia_adapter\.Corrupt: torch\.jit\.trace .*onnx.*would store.*Leave the"):
        torch.jit.trace(Corrupt(NOISE), images, check_trace=False)
    exported = torch.export.export(torch.nn.Sequential(Corrupt(NOISE)), (images,)).module()
    assert not torch.equal(exported(images), exported(images))


def test_p_is_a_chance_per_image_that_follows_from_its_key() -> None:
    images = random_images((400, 1, 8, 8))
    corrupt = Corrupt(NOISE, p=0.3)
    found = corrupt(images)
    params = corrupt._params
    touched = changed(found, images).flatten(1).any(1)
    assert 0.2 < touched.float().mean() < 0.4  # 4 sigma
    assert torch.equal(changed(found, images), corrupt.mask())
    assert torch.equal(corrupt(images[:7], params={"keys": params["keys"][:7]}), found[:7])
    assert torch.equal(Corrupt(NOISE, p=0.0)(images), images)
    gate = params["batch_prob"].clone()
    params["batch_prob"] = 1.0 - gate  # kornia's way of choosing by hand
    assert torch.equal(corrupt.mask(params).flatten(1).any(1), gate < 0.5)
    assert torch.equal(changed(corrupt(images, params=params), images), corrupt.mask(params))
    everyone = Corrupt(NOISE)  # with p=1 kornia does not look at the choice, and neither does the mask
    assert torch.equal(changed(everyone(images, params=params), images), everyone.mask(params))
    assert everyone.mask(params).flatten(1).any(1).all()


def test_an_image_is_corrupted_by_its_key() -> None:
    images, keys = random_images((4, 3, 32, 32)), ga.keys(1, 2, range(4))
    corrupt = Corrupt(MIXED)
    given = {"keys": keys}
    found = corrupt(images, params=given)
    wanted = MIXED(images, keys=keys)
    assert same_bits(found, wanted.images)
    assert same_bits(corrupt.mask(), wanted.mask)
    assert set(given) == {"keys"}


def test_same_on_batch_is_honoured_also_from_the_container() -> None:
    images = random_images((4, 3, 32, 32))
    one, other = Corrupt(NOISE, same_on_batch=True), Corrupt(NOISE)
    one(images)
    aug.AugmentationSequential(other, same_on_batch=True)(images)
    for corrupt in (one, other):
        assert len(torch.unique(corrupt.mask().flatten(1), dim=0)) == 1
        assert len(corrupt._params["keys"].unique()) == 1
    apart = Corrupt(NOISE)
    apart(images)
    assert len(torch.unique(apart.mask().flatten(1), dim=0)) == 4


def test_a_generator_leaves_torchs_own_alone() -> None:
    images = random_images((8, 3, 32, 32))
    before = torch.get_rng_state()
    found = [Corrupt(MIXED, p=0.5, generator=torch.Generator().manual_seed(seed))(images) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert same_bits(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    torch.manual_seed(4)
    first = Corrupt(MIXED)(images)
    torch.manual_seed(4)
    assert same_bits(Corrupt(MIXED)(images), first)


def test_single_images_are_kept_or_batched_as_kornia_does_and_need_a_bank_for_aliens() -> None:
    image, bank = random_images((3, 32, 32)), random_images((5, 3, 32, 32), seed=1)
    alien = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien())
    assert Corrupt(NOISE)(image).shape == (1, 3, 32, 32)
    assert Corrupt(NOISE, keepdim=True)(image).shape == (3, 32, 32)
    with pytest.raises(ValueError, match=r"Alien: a donor must be another image"):
        Corrupt(alien)(image)
    corrupt = Corrupt(alien, donors=bank)
    found, mask = corrupt(image)[0], corrupt.mask()[0].expand(3, 32, 32)
    assert sum(bool((found == donor)[mask].all()) for donor in bank) == 1
    assert same_bits(corrupt(image, params=corrupt._params)[0], found)


def test_modules_are_copied_and_pickled_without_state() -> None:
    images = random_images((4, 3, 32, 32))
    corrupt = Corrupt(MIXED, p=0.5)
    assert not corrupt.state_dict()
    for other in (copy.deepcopy(corrupt).eval(), pickle.loads(pickle.dumps(corrupt))):
        torch.manual_seed(2)
        found = other(images)
        torch.manual_seed(2)
        assert same_bits(corrupt(images), found)
    assert "Alien()" in repr(aug.AugmentationSequential(corrupt))


def test_autocast_and_gradients_pass() -> None:
    images = random_images((4, 3, 32, 32)).requires_grad_()
    corrupt = Corrupt(NOISE, p=0.5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = corrupt(images)
    assert found.dtype == torch.float32
    found.sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, (~corrupt.mask()).float().expand_as(images))


def test_no_batch_is_held_between_calls() -> None:
    import gc
    import weakref

    corrupt = Corrupt(MIXED)
    images = random_images((4, 3, 32, 32))
    found = corrupt(images)
    traces = [weakref.ref(images), weakref.ref(found)]
    del images, found
    gc.collect()
    assert [trace() for trace in traces] == [None, None]


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: Corrupt(torch.nn.Identity()), TypeError, r"kornia_adapter\.Corrupt: corrupt=.*not a corruption"),
        (lambda: Corrupt(NOISE, p=1.5), ValueError, r"kornia_adapter\.Corrupt: p=1.5 is out of range"),
        (lambda: Corrupt(NOISE, generater=None), TypeError, r"generater"),
        (lambda: Corrupt(NOISE)(torch.zeros(2, 3, 8, 8), generator=None), TypeError, r"generator"),
        (lambda: Corrupt(NOISE)(torch.zeros(2, 3, 8, 8), params={"key": some_keys(2)}), ValueError, r"\['key'\] hold no keys"),
        (lambda: Corrupt(NOISE)(torch.zeros(2, 3, 8, 8), params={"keys": some_keys(3)}), ValueError, r"keys have shape \(3,\)"),
        (lambda: Corrupt(NOISE).mask(), ValueError, r"Call it first"),
        (lambda: Corrupt(ga.Boxes), TypeError, r"not a corruption"),
        (lambda: Corrupt(ga.InBoxes(ga.Boxes(ratio=0.5, dims=1), ga.Noise())), ValueError, r"works on 1 spatial axes"),
        (lambda: Corrupt(NOISE)(torch.zeros(2, 3, 8, 8, dtype=torch.uint8)), TypeError, r"uint8|dtype"),
    ],
)
def test_what_cannot_be_done_is_an_error(make: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        make()
