"""`torchvision_adapter.Corrupt` in real torchvision pipelines: what is corrupted, what is not, and where the mask is."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

import gmml_aug as ga
from tests.helpers import random_images, same_bits, some_keys

pytest.importorskip("torchvision")

from torchvision import tv_tensors
from torchvision.transforms import v2

Corrupt: Any = ga.torchvision_adapter.Corrupt
NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())
MIXED = ga.presets.gmml()
ALIEN = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien())


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("plain", [False, True])
def test_a_batch_is_corrupted_as_without_torchvision(dtype: torch.dtype, plain: bool) -> None:
    images = random_images((4, 3, 32, 32), dtype)
    kept = images.clone()
    found, mask = v2.Compose([v2.Identity(), Corrupt(MIXED, generator=seeded())])(images if plain else tv_tensors.Image(images))
    wanted = MIXED(images, generator=seeded())
    assert type(found) is (Tensor if plain else tv_tensors.Image)
    assert type(mask) is tv_tensors.Mask
    assert same_bits(found.as_subclass(Tensor), wanted.images)
    assert same_bits(mask.as_subclass(Tensor), wanted.mask)
    assert same_bits(images, kept)


def test_a_single_image_keeps_its_three_axes_and_may_take_aliens_from_a_bank() -> None:
    image, bank = tv_tensors.Image(random_images((3, 32, 32))), random_images((6, 3, 32, 32), seed=1)
    found, mask = Corrupt(NOISE)(image)
    assert found.shape == (3, 32, 32)
    assert mask.shape == (1, 32, 32)
    assert mask.sum().item() == 512
    assert torch.equal(*(one[~mask.as_subclass(Tensor).expand(3, 32, 32)] for one in (found, image)))
    with pytest.raises(ValueError, match=r"Alien: a donor must be another image.*give donors="):
        Corrupt(ALIEN)(image)
    found, mask = Corrupt(ALIEN, donors=bank)(image)
    same = [bool((found == donor)[mask.as_subclass(Tensor).expand(3, 32, 32)].all()) for donor in bank]
    assert sum(same) == 1
    skipped, mask = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien(alone="skip")))(image)
    assert torch.equal(skipped, image)
    assert not mask.any()


def others() -> dict[str, Any]:
    return {
        "seg": tv_tensors.Mask(torch.ones(1, 32, 32, dtype=torch.uint8)),
        "boxes": tv_tensors.BoundingBoxes(torch.tensor([[1, 2, 8, 9]]), format="XYXY", canvas_size=(32, 32)),
        "video": tv_tensors.Video(torch.rand(2, 3, 32, 32)),
        "label": torch.tensor([1, 2]),
        "plain": torch.rand(3, 32, 32),
        "name": "photograph.jpg",
        "nested": {"score": 0.5, "more": [torch.rand(2)]},
    }


def test_everything_but_the_image_passes_through_a_dict() -> None:
    image, rest = tv_tensors.Image(random_images((3, 32, 32))), others()
    before = copy.deepcopy(rest)
    done = Corrupt(NOISE)({"picture": image, **rest})
    assert list(done) == ["picture", *rest, "clean", "mask"]
    assert torch.equal(done["clean"], image)
    assert (done["picture"] != image).any(0, keepdim=True).sum() > 400
    for name, value in rest.items():
        if name != "nested":
            assert done[name] is value
            assert torch.equal(value, before[name]) if isinstance(value, Tensor) else value == before[name]
    assert done["nested"]["more"][0] is rest["nested"]["more"][0]


def test_everything_but_the_image_passes_through_arguments_and_the_mask_is_last() -> None:
    image, rest = tv_tensors.Image(random_images((3, 32, 32))), others()
    found, target, label, mask = Corrupt(NOISE)(image, rest, 3)
    assert type(found) is tv_tensors.Image
    assert target["boxes"] is rest["boxes"]
    assert target["seg"] is rest["seg"]
    assert label == 3
    assert mask.sum().item() == 512
    pair = Corrupt(NOISE, mask=False)(image, 3)
    assert len(pair) == 2
    assert pair[1] == 3
    assert isinstance(Corrupt(NOISE, mask=False)(image), tv_tensors.Image)


def test_later_transforms_move_image_clean_and_mask_together() -> None:
    flow: Any = [Corrupt(NOISE), v2.RandomHorizontalFlip(0.5), v2.RandomCrop(20), v2.Normalize([0.5] * 3, [2.0] * 3)]
    flow = v2.Compose([*flow, v2.ToPureTensor()])  # torchvision does not mix its classes in one operation
    torch.manual_seed(0)
    for _ in range(6):
        done = flow({"image": random_images((4, 3, 32, 32)), "label": torch.arange(4)})
        assert done["image"].shape == (4, 3, 20, 20)
        assert torch.equal((done["image"] != done["clean"]).any(1, keepdim=True), done["mask"])
        image, label, mask = flow(tv_tensors.Image(random_images((4, 3, 32, 32))), torch.arange(4))
        assert image.shape[-1] == mask.shape[-1] == len(label) * 5


def test_a_plan_is_drawn_once_and_replays_from_disk(tmp_path: Path) -> None:
    images = tv_tensors.Image(random_images((4, 3, 32, 32)))
    transform = Corrupt(MIXED)
    params = transform.make_params([images])
    first = transform.transform(images, params)
    assert set(params) == {"plan", "mask"}
    assert torch.equal(transform.transform(images, {"plan": params["plan"]}), first)
    assert torch.equal(params["mask"], MIXED.apply(random_images((4, 3, 32, 32)), params["plan"]).mask)
    pytest.importorskip("safetensors")
    params["plan"].save(tmp_path / "plan.safetensors")
    again = transform.transform(images, {"plan": ga.Plan.load(tmp_path / "plan.safetensors")})
    assert same_bits(again.as_subclass(Tensor), first.as_subclass(Tensor))


def test_a_transform_keeps_no_state() -> None:
    images = tv_tensors.Image(random_images((4, 3, 32, 32)))
    transform = Corrupt(MIXED)
    before = dict(vars(transform))
    transform(images)
    assert dict(vars(transform)) == before
    assert not transform.state_dict()
    torch.manual_seed(1)
    wanted = transform(images)
    for other in (copy.deepcopy(transform).eval(), pickle.loads(pickle.dumps(transform)), eval_of(transform)):
        torch.manual_seed(1)
        assert all(torch.equal(a, b) for a, b in zip(other(images), wanted, strict=True))
    assert "Alien()" in repr(transform)


def eval_of(transform: Any) -> Any:
    return v2.Compose([transform]).eval()


class Alike:
    """The same image again and again, corrupted on its own in a worker."""

    def __init__(self, transform: Any) -> None:
        self.transform = transform

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        try:
            return self.transform(torch.zeros(3, 16, 16))[1].as_subclass(Tensor)
        except ValueError as error:
            return str(error)


def in_two_workers(transform: Any) -> list[Any]:
    dataset: Any = Alike(transform)
    return list(DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context="fork"))


def test_workers_draw_for_themselves_and_refuse_the_copy_of_a_generator() -> None:
    masks = torch.cat(in_two_workers(Corrupt(NOISE)))
    assert len(torch.unique(masks.flatten(1), dim=0)) == 8
    errors = {error for batch in in_two_workers(Corrupt(NOISE, generator=seeded())) for error in batch}
    assert len(errors) == 1
    assert "a generator cannot be used in the worker" in errors.pop()


def a_photograph() -> Any:
    from PIL import Image

    return Image.new("RGB", (32, 32))


IMAGE = tv_tensors.Image(torch.zeros(3, 32, 32))


@pytest.mark.parametrize(
    ("sample", "kind", "message"),
    [
        (lambda: a_photograph(), TypeError, r"got a PIL image.*v2\.ToImage\(\)"),
        (lambda: {"image": IMAGE, "photograph": a_photograph()}, TypeError, r"PIL image"),
        (lambda: {"label": 1}, ValueError, r"0 images in one sample"),
        (lambda: tv_tensors.Mask(torch.zeros(1, 8, 8)), ValueError, r"0 images"),
        (lambda: (IMAGE, IMAGE), ValueError, r"2 images in one sample. Give one"),
        (lambda: {"image": IMAGE, "mask": 1}, ValueError, r"the sample already has mask.*mask=False"),
        (lambda: {"sample": {"image": IMAGE}}, ValueError, r"deeper in the dict"),
        (lambda: torch.zeros(8, 8), ValueError, r"Tensor \(8, 8\) was given.*works on 2 spatial axes.*Boxes\(dims=1\)"),
        (lambda: {"label": torch.arange(4), "pixels": torch.zeros(3, 8, 8)}, ValueError, r"int64 \(4,\)\. Name.*'label', 'pixels'"),
        (lambda: {"depth": torch.ones(1, 8, 8), "image": "a.jpg"}, TypeError, r"field 'image' holds str, which is not a tensor"),
    ],
)
def test_samples_that_cannot_be_corrupted_are_errors(sample: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        Corrupt(NOISE)(sample())


@pytest.mark.parametrize(
    ("options", "sample", "message"),
    [
        ({"image": "picture"}, {"image": IMAGE, "label": 1}, r"image='picture' holds nothing.*fields 'image', 'label'"),
        ({"image": "name"}, {"image": IMAGE, "name": "a.jpg"}, r"image='name' holds str"),
        ({"image": 1}, (IMAGE,), r"image=1 holds nothing"),
        ({}, tv_tensors.Video(torch.zeros(1, 3, 3, 8, 8)), r"Alien: .*batch holds 1"),
    ],
)
def test_a_field_that_holds_no_image_and_a_clip_alone_are_errors(options: dict[str, Any], sample: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Corrupt(NOISE if options else ALIEN, **options)(sample)


def test_no_tensor_is_taken_for_the_image_where_a_field_is_called_so() -> None:
    depth, image = torch.ones(4, 1, 16, 16), random_images((4, 3, 16, 16))
    for sample in ({"label": torch.arange(4), "image": image}, {"depth": depth, "image": image}):
        done = Corrupt(NOISE)(sample)
        assert torch.equal(done["clean"], image)
        assert torch.equal((done["image"] != image).any(1, keepdim=True), done["mask"])
        assert all(done[name] is value for name, value in sample.items() if name != "image")
    named = Corrupt(NOISE, image="depth")({"depth": depth, "image": tv_tensors.Image(image)})
    assert torch.equal(named["image"], image)
    assert named["mask"].sum().item() == 4 * 128
    assert torch.equal((named["depth"] != 1).any(1, keepdim=True), named["mask"])
    label, found, mask = Corrupt(NOISE, image=1)((torch.arange(4), image))
    assert torch.equal(label, torch.arange(4))
    assert torch.equal((found != image).any(1, keepdim=True), mask)


Sample = namedtuple("Sample", ["label", "image"])


class Node:
    """Something that its owner has told torch how to flatten, without names."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts


@pytest.mark.parametrize("mask", [False, True])
def test_fields_are_named_in_any_structure_that_torch_knows(mask: bool) -> None:
    if Node not in pytree.SUPPORTED_NODES:
        pytree.register_pytree_node(Node, lambda node: (list(node.parts), None), lambda parts, _: Node(*parts))
    image, label, node = random_images((3, 16, 16)), torch.arange(3), Node(torch.zeros(3), torch.zeros(3, 16, 16))
    transform = Corrupt(NOISE, mask=mask)
    done = transform(OrderedDict(node=node, image=image, label=label))
    assert (done["image"] != image).any(0).sum().item() == 128
    assert not any(part.any() for part in done["node"].parts)
    found = transform(Sample(label, image))
    assert found[0] is label
    assert (found[1] != image).any(0).sum().item() == 128
    nested = Corrupt(NOISE, mask=False)([node, {"more": (label, {"image": image})}])
    assert (nested[1]["more"][1]["image"] != image).any(0).sum().item() == 128


def test_p_leaves_images_alone_and_the_structure_of_a_sample_as_it_is() -> None:
    images = random_images((400, 1, 8, 8))
    transform = Corrupt(NOISE, p=0.3)
    params = transform.make_params([images])
    found = transform.transform(images, params)
    touched = (found != images).any(1, keepdim=True)
    assert torch.equal(touched, params["mask"].as_subclass(Tensor))
    assert 0.2 < touched.flatten(1).any(1).float().mean() < 0.4  # 4 sigma
    assert torch.equal(transform.transform(images, {"plan": params["plan"]}), found)
    flow = v2.Compose([Corrupt(NOISE, p=0.5), v2.ToPureTensor()])
    samples = [flow({"image": tv_tensors.Image(images[0]), "label": 1}) for _ in range(32)]
    batch = torch.utils.data.default_collate(samples)  # fails where samples differ in structure
    assert 0 < batch["mask"].flatten(1).any(1).sum() < 32
    assert not Corrupt(NOISE, p=0.0)(images)[1].any()
    with pytest.raises(ValueError, match=r"p=1\.5 is out of range"):
        Corrupt(NOISE, p=1.5)


@pytest.mark.parametrize("lead", [(), (3,), (2, 3), (0,), (5, 0), (0, 5)], ids=str)
def test_images_may_have_any_leading_axes(lead: tuple[int, ...]) -> None:
    images = random_images((*lead, 3, 16, 16))
    for one in (images, tv_tensors.Image(images)):
        found, mask = Corrupt(NOISE)(one)
        assert type(found) is type(one)
        assert found.shape == images.shape
        assert mask.shape == (*lead, 1, 16, 16)
        assert torch.equal((found != images).any(-3, keepdim=True), mask)
        assert mask.sum().item() == 128 * mask[..., 0, 0, 0].numel()


@pytest.mark.parametrize("bank", [False, True])
def test_the_frames_of_a_clip_are_corrupted_alike_and_an_alien_is_a_frame_of_one_clip(bank: bool) -> None:
    clips = tv_tensors.Video(random_images((4, 5, 3, 16, 16)))
    donors = random_images((6, 3, 16, 16), seed=1) if bank else None
    found, mask = Corrupt(ALIEN, donors=donors)(clips)
    assert type(found) is tv_tensors.Video
    assert mask.shape == (4, 5, 1, 16, 16)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    for number, (clip, touched) in enumerate(zip(found.as_subclass(Tensor), mask.as_subclass(Tensor), strict=True)):
        sources = clips.as_subclass(Tensor) if donors is None else donors[:, None].expand(-1, 5, -1, -1, -1)
        same = [bool((clip == one)[touched.expand_as(clip)].all()) for one in sources]
        assert sum(same) == 1
        assert bank or not same[number]
        assert torch.equal(clip[~touched.expand_as(clip)], clips[number].as_subclass(Tensor)[~touched.expand_as(clip)])
    one, mask = Corrupt(NOISE)(tv_tensors.Video(clips[0]))
    assert one.shape == (5, 3, 16, 16)
    assert mask.sum().item() == 5 * 128
    done = Corrupt(NOISE)({"video": tv_tensors.Video(clips[0])})
    assert type(done["clean"]) is tv_tensors.Video


def test_a_corruption_with_three_axes_works_on_time_too() -> None:
    clips = tv_tensors.Video(random_images((2, 8, 3, 16, 16)))
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5, dims=3), ga.Noise())
    torch.manual_seed(0)
    found, mask = Corrupt(corrupt)(clips)
    torch.manual_seed(0)
    wanted = corrupt(clips.as_subclass(Tensor).movedim(1, 2))
    assert same_bits(found.as_subclass(Tensor).movedim(1, 2).contiguous(), wanted.images)
    assert torch.equal(mask.movedim(1, 2), wanted.mask)


def test_without_a_mask_several_images_are_corrupted_alike_and_none_is_no_error() -> None:
    left, right, small = (tv_tensors.Image(random_images((3, side, side), seed=side)) for side in (16, 16, 8))
    transform = Corrupt(ga.InBoxes(ga.Boxes(ratio=0.5), ga.Constant()), mask=False)
    done = transform({"left": left, "right": right, "small": small, "boxes": others()["boxes"]})
    masks = [(done[name] == 0).all(0) for name in ("left", "right", "small")]
    assert torch.equal(masks[0], masks[1])
    assert [int(mask.sum()) for mask in masks] == [128, 128, 32]
    sample = {"boxes": others()["boxes"], "label": 3}
    assert transform(sample) == sample


def test_misspelt_options_and_wrong_generators_are_errors() -> None:
    with pytest.raises(TypeError, match="generater"):
        Corrupt(NOISE, generater=seeded())
    with pytest.raises(TypeError, match=r"not a corruption"):
        Corrupt(v2.Identity())
    with pytest.raises(TypeError, match=r"Give a torch\.Generator"):
        Corrupt(NOISE, generator=5)(IMAGE)


def test_the_names_before_torchvision_021_do_the_same() -> None:
    transform = Corrupt(NOISE, generator=seeded())
    params = transform._get_params([IMAGE])
    assert torch.equal(transform._transform(IMAGE, params), NOISE(IMAGE.as_subclass(Tensor)[None], generator=seeded()).images[0])


def test_a_signal_is_told_from_a_batch_by_the_axes_of_the_boxes() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5, dims=1), ga.Noise())
    one, mask = Corrupt(corrupt)(torch.zeros(2, 64))
    assert one.shape == (2, 64)
    assert mask.shape == (1, 64)
    assert Corrupt(corrupt)(torch.zeros(4, 2, 64))[1].sum().item() == 4 * 32


def test_keys_need_no_adapter_for_replay() -> None:
    images = random_images((4, 3, 32, 32))
    plan = MIXED.sample(images.shape, keys=some_keys(4))
    assert same_bits(Corrupt(MIXED).transform(images, {"plan": plan}), MIXED(images, keys=some_keys(4)).images)
