"""Kinds of tensors: those that work, those that are refused by name before any work, and what comes out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given as drawn
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad

import gmml_aug as ga
from gmml_aug.tensors import overlap, repeats_itself
from tests.helpers import random_images, same_bits, some_keys

HALF = ga.Boxes(ratio=0.5)
FILLS: list[ga.Corruption] = [
    ga.Noise(),
    ga.Noise(distribution="matched"),
    ga.Zeros(),
    ga.Constant(value=(0.0, 1.0)),
    ga.Mean(),
    ga.Shuffle(),
    ga.Alien(),
    ga.Grey(),
    ga.Blur(),
    ga.Jitter(),
]
IMAGES = random_images((3, 3, 16, 16)).sigmoid()
KEYS = some_keys(3)


class Own(Tensor):
    """A class of somebody's own."""


def corruption(fill: ga.Corruption) -> ga.Corruption:
    return ga.Chain([ga.InBoxes(HALF, fill)], values="unit")


def product_by_backward(corrupt: ga.Corruption, images: Tensor, direction: Tensor) -> Tensor:
    """The derivative along a direction, by differentiating the gradient: the product is linear in its factor."""
    images = images.clone().requires_grad_()
    out = corrupt(images, keys=KEYS).images
    factor = torch.zeros_like(out, requires_grad=True)
    gradient = torch.autograd.grad(out, images, factor, create_graph=True)[0]
    return torch.autograd.grad(gradient, factor, direction)[0]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*")
@pytest.mark.parametrize("fill", FILLS, ids=repr)
def test_forward_derivatives_are_those_of_backward(fill: ga.Corruption) -> None:
    corrupt, direction = corruption(fill), random_images(IMAGES.shape, seed=1)
    wanted = product_by_backward(corrupt, IMAGES, direction)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(corrupt(forward_ad.make_dual(IMAGES, direction), keys=KEYS).images)
    assert dual.tangent is not None
    assert torch.allclose(dual.tangent, wanted, atol=1e-5)
    pair = torch.func.jvp(lambda images: corrupt(images, keys=KEYS).images, (IMAGES,), (direction,))
    assert torch.allclose(pair[1], wanted, atol=1e-5)
    assert torch.allclose(pair[0], corrupt(IMAGES, keys=KEYS).images, atol=1e-6)


PLACES: list[ga.Corruption] = [
    *(ga.InBoxes(HALF, fill) for fill in FILLS if not isinstance(fill, ga.Alien)),
    ga.InBoxes(ga.Boxes(count=(1, 4), placement="inside"), ga.Zeros()),
    ga.presets.mae(patch=4),
    ga.InBoxes(ga.Blocks(size=4, ratio=0.5, least=1), ga.Zeros()),
    ga.Chain([ga.InBoxes(HALF, ga.Noise()), ga.InBoxes(HALF, ga.Zeros(), p=0.5)], budget=0.6),
]


@pytest.mark.parametrize("corrupt", PLACES, ids=repr)
def test_vmap_gives_what_a_batch_gives(corrupt: ga.Corruption) -> None:
    wanted = corrupt(IMAGES, keys=KEYS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a slow way round would warn
        images, mask = torch.vmap(lambda image, key: tuple(corrupt(image[None], keys=key[None])))(IMAGES, KEYS)
    assert torch.equal(mask[:, 0], wanted.mask)
    assert torch.allclose(images[:, 0], wanted.images, atol=1e-5)


def test_gradients_by_function_are_those_of_backward() -> None:
    corrupt = ga.presets.gmml(values="unit")
    images = IMAGES.clone().requires_grad_()
    (corrupt(images, keys=KEYS).images ** 2).sum().backward()
    found = torch.func.grad(lambda images: (corrupt(images, keys=KEYS).images ** 2).sum())(IMAGES)
    assert torch.allclose(found, images.grad, atol=1e-5)  # type: ignore[arg-type]


def test_a_fake_tensor_works_in_its_mode_and_is_refused_outside() -> None:
    corrupt = ga.presets.gmml()
    with FakeTensorMode() as mode:
        images, keys = mode.from_tensor(IMAGES), mode.from_tensor(KEYS)
        out = corrupt(images, keys=keys)
        assert out.images.shape == IMAGES.shape
        assert out.mask.shape == (3, 1, 16, 16)
        plan = corrupt.sample(IMAGES.shape, keys=keys)
    calls: tuple[Callable[[], Any], ...] = (
        lambda: corrupt(images),
        lambda: corrupt(IMAGES, keys=keys),
        lambda: corrupt.apply(IMAGES, plan),
        lambda: corrupt(IMAGES, donors=images),
        lambda: corrupt(IMAGES, out=images),
        lambda: corrupt(IMAGES, allowed=out.mask),
    )
    for call in calls:
        with pytest.raises(TypeError, match=r"gmml_aug: got .* as a FakeTensor.*Give a plain tensor"):
            call()


def _nested() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls them a prototype
        return torch.nested.nested_tensor([IMAGES[0], IMAGES[1][:, :9]])


def _sparse_csr() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sparse: Tensor = IMAGES.flatten(1).to_sparse_csr()
        return sparse


REFUSED: dict[str, tuple[Callable[[], Tensor], str]] = {
    "nested": (_nested, r"got images as a nested tensor.*to_padded_tensor.*lengths="),
    "sparse": (lambda: IMAGES.to_sparse(), r"got images with layout torch.sparse_coo.*images.to_dense\(\)"),
    "sparse by rows": (_sparse_csr, r"got images with layout torch.sparse_csr.*images.to_dense\(\)"),
    "mkldnn": (lambda: IMAGES.to_mkldnn(), r"got images with layout torch._mkldnn.*images.to_dense\(\)"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("role", ["images", "donors", "out"])
def test_other_layouts_are_refused_by_name_before_any_work(name: str, role: str) -> None:
    make, message = REFUSED[name]
    before, given = torch.get_rng_state(), make()
    options: dict[str, Any] = {} if role == "images" else {role: given}
    with pytest.raises((TypeError, ValueError), match=r"^gmml_aug: ") as error:
        ga.presets.gmml()(given if role == "images" else IMAGES, **options)
    assert torch.equal(torch.get_rng_state(), before)
    if role == "images":
        error.match(message)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:.*torch.jit.*")
def test_a_trace_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"gmml_aug: torch.jit.trace .*one call forever.*torch.compile"):
        torch.jit.trace(lambda images: ga.presets.gmml()(images).images, IMAGES)


def _imaginary(images: Tensor) -> Tensor:
    """The same values under a negative bit."""
    return torch.complex(torch.zeros_like(images), -images).conj().imag


@pytest.mark.parametrize("corrupt", [ga.presets.gmml(), ga.InBoxes(HALF, ga.Alien()), ga.InBoxes(HALF, ga.Jitter())], ids=repr)
@pytest.mark.parametrize("negative", [_imaginary, lambda images: torch._neg_view(-images)], ids=["imaginary", "contiguous"])
def test_a_negative_bit_changes_nothing(corrupt: ga.Corruption, negative: Callable[[Tensor], Tensor]) -> None:
    images = negative(IMAGES)
    assert images.is_neg()
    wanted = corrupt(IMAGES, keys=KEYS)
    found = corrupt(images, keys=KEYS)
    assert torch.equal(found.mask, wanted.mask)
    assert torch.allclose(found.images, wanted.images, atol=1e-6)
    plan = corrupt.sample(IMAGES.shape, keys=KEYS, bank=3)
    given = corrupt.apply(IMAGES, plan, donors=negative(IMAGES.flip(0))).images
    assert torch.equal(given, corrupt.apply(IMAGES, plan, donors=IMAGES.flip(0)).images)
    out = torch.zeros_like(IMAGES)
    with pytest.raises(ValueError, match=r"gmml_aug: out has a negative bit.*torch.empty_like"):
        corrupt(IMAGES, out=negative(out))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_a_class_of_its_own_comes_out_as_a_plain_tensor(backend: Any) -> None:
    from torchvision import tv_tensors

    corrupt = ga.presets.gmml(values="unit")
    wanted = corrupt(IMAGES, keys=KEYS, backend=backend)
    allowed = torch.ones(3, 1, 16, 16, dtype=torch.bool)
    for given in (IMAGES.as_subclass(Own), tv_tensors.Image(IMAGES), torch.nn.Parameter(IMAGES, requires_grad=False)):
        for out in (
            corrupt(given, keys=KEYS, backend=backend),
            corrupt(given, keys=KEYS.as_subclass(Own), donors=given, allowed=tv_tensors.Mask(allowed), backend=backend),
            corrupt.apply(given, corrupt.sample(given.shape, keys=KEYS), backend=backend),
        ):
            assert type(out.images) is type(out.mask) is Tensor
            assert same_bits(out.images, wanted.images)
            assert torch.equal(out.mask, wanted.mask)
    parameter = torch.nn.Parameter(IMAGES.clone())
    out = corrupt(parameter, keys=KEYS)
    out.images.sum().backward()
    assert type(out.images) is Tensor
    assert parameter.grad is not None
    pair = corrupt.from_bytes((IMAGES * 255).to(torch.uint8).as_subclass(Own), keys=KEYS)
    assert {type(one) for one in pair} == {Tensor}


def test_the_batch_under_another_name_is_the_batch() -> None:
    corrupt = ga.InBoxes(HALF, ga.Alien())
    pair = IMAGES[:2]
    wanted = corrupt(pair, keys=KEYS[:2]).images
    names = (pair, pair[:], pair.detach(), pair.view_as(pair), pair.as_subclass(Own), torch.from_numpy(pair.numpy()), IMAGES[:-1])
    for name in names:
        assert same_bits(corrupt(pair, keys=KEYS[:2], donors=name).images, wanted)
    stored = (pair * 255).to(torch.uint8)
    unit = ga.Chain([corrupt], values="unit")
    for twin in (stored, stored[:]):
        assert same_bits(unit.from_bytes(stored, keys=KEYS[:2], donors=twin).images, unit.from_bytes(stored, keys=KEYS[:2]).images)
    bank = pair.clone()
    found = {
        int((corrupt(pair, keys=some_keys(2, seed), donors=bank).images == pair).flatten(1).all(1).sum()) for seed in range(20)
    }
    assert found != {0}  # a bank may hold equal images; none of its own is left out


def test_donors_that_share_some_of_the_memory_are_refused_and_the_advice_works() -> None:
    corrupt, batch = ga.InBoxes(HALF, ga.Alien()), random_images((6, 3, 16, 16))
    for donors in (batch, batch[1:4], batch[1:]):
        with pytest.raises(
            ValueError, match=r"gmml_aug: donors of shape .* share memory with the images.*corrupt.apply\(batch\[i:j\]"
        ):
            corrupt(batch[:3], keys=KEYS, donors=donors)
    keys, (i, j) = some_keys(6), (0, 3)
    plan = corrupt.sample(batch.shape, keys=keys)
    assert same_bits(corrupt.apply(batch[i:j], plan[i:j], donors=batch).images, corrupt(batch, keys=keys).images[i:j])
    assert corrupt(batch[:3], keys=KEYS, donors=batch[3:]).mask.any()  # beside it in memory, not the same
    wide = random_images((3, 6, 16, 16))
    assert corrupt(wide[:, :3], keys=KEYS, donors=wide[:, 3:]).mask.any()  # between it in memory


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_an_out_that_overlaps_gives_the_same_images(backend: Any) -> None:
    corrupt = ga.Chain([ga.InBoxes(HALF, ga.Zeros()), ga.InBoxes(HALF, ga.Alien()), ga.InBoxes(HALF, ga.Blur())])
    array = random_images((5, 3, 16, 16)).numpy()
    keys = some_keys(4)
    wanted = corrupt(torch.from_numpy(array[:4].copy()), keys=keys, backend=backend).images
    one, two = array.copy(), array.copy()  # two storages of NumPy's on one memory, and two views of torch's
    whole = torch.from_numpy(two)
    assert same_bits(corrupt(torch.from_numpy(one[:4]), keys=keys, out=torch.from_numpy(one[1:]), backend=backend).images, wanted)
    assert same_bits(corrupt(whole[:4], keys=keys, out=whole[1:], backend=backend).images, wanted)
    bank = torch.from_numpy(array.copy())
    given = corrupt(bank[:4].clone(), keys=keys, donors=bank, backend=backend).images
    assert same_bits(corrupt(bank[:4].clone(), keys=keys, donors=bank, out=bank[1:], backend=backend).images, given)


def test_out_that_cannot_be_written_to_is_refused() -> None:
    images, keys = torch.ones(2, 3, 32, 32), some_keys(2)
    corrupt = ga.InBoxes(HALF, ga.Zeros())
    rows = torch.zeros(2 * 3 * 32 * 40).as_strided((2, 3, 32, 32), (3072, 1024, 16, 1))
    leaf = torch.rand(2, 3, 32, 32, requires_grad=True)
    for out, message in ((rows, "rows that overlap"), (leaf, "is a leaf that requires gradients")):
        before = out.detach().clone()
        with pytest.raises(ValueError, match=rf"gmml_aug: out .*{message}.*Give a separate buffer: torch.empty_like"):
            corrupt(images, keys=keys, out=out)
        assert torch.equal(out.detach(), before)
    with torch.no_grad():
        assert corrupt(images, keys=keys, out=leaf).images is leaf


@drawn(st.data())
def test_two_views_overlap_where_they_have_an_element_in_common(data: st.DataObject) -> None:
    store = torch.arange(400)
    views = []
    for _ in range(2):
        lengths = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
        strides = [data.draw(st.integers(0, 40)) for _ in lengths]
        views.append(store.as_strided(lengths, strides, data.draw(st.integers(0, 30))))
    one, other = (set(view.flatten().tolist()) for view in views)
    assert overlap(*views) == bool(one & other)
    assert overlap(views[0], torch.from_numpy(store.numpy())) is True
    for view, numbers in zip(views, (one, other), strict=True):
        if not repeats_itself(view):
            assert len(numbers) == view.numel()


def test_views_of_ordinary_layouts_do_not_repeat_themselves() -> None:
    images = torch.zeros(2, 3, 8, 10)
    views = (
        images, images[:, :, ::2, 1:], images.permute(0, 2, 3, 1), images.to(memory_format=torch.channels_last), images.flip(0),
        torch.from_numpy(numpy.zeros((4, 4))[:, ::2]), images[:1].expand(1, 3, 8, 10),
    )  # fmt: skip
    assert not any(map(repeats_itself, views))
    assert repeats_itself(images[:1].expand(2, 3, 8, 10))
