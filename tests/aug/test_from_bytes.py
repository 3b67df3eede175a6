"""One call from bytes: the clean batch is the normalised one, and what is beside it is what a call with that batch gives."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug import values as raw
from gmml_aug.backends.base import backend_of
from gmml_aug.values import Values
from tests.aug.interpreter import INTERPRETS, by_interpreter, examples, few_or_all, runs_once, volumes_are_meant
from tests.helpers import lay_out, random_images, same_bits, some_keys
from tests.strategies import every_tree, shapes, small_sizes

pytestmark = volumes_are_meant

KNOWN = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def some_bytes(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Images as a decoder leaves them, black and white among them."""
    images = random_images(shape, torch.uint8, seed)
    images.view(-1)[:2] = torch.tensor([0, 255])[: images.numel()]
    return images


def normalised(images: Tensor, values: Values, dtype: torch.dtype) -> Tensor:
    """The oracle: numpy's float32, one multiplication and one addition, then one rounding."""
    channels = images.shape[1]
    mean, std = ((0.0,), (1.0,)) if isinstance(values, str) else values
    shape = (1, -1, *[1] * (images.ndim - 2))
    scale = np.array([1.0 / (255.0 * std[c % len(std)]) for c in range(channels)], np.float32).reshape(shape)
    shift = np.array([-mean[c % len(mean)] / std[c % len(std)] for c in range(channels)], np.float32).reshape(shape)
    return torch.from_numpy(images.numpy().astype(np.float32) * scale + shift).to(dtype)


@dataclass(frozen=True)
class Brighter(ga.Fill):
    """A fill of somebody's own that looks at all it can see."""

    def pixels(self, scene: Any, drawn: Any) -> Tensor:
        made: Tensor = (scene.now + scene.clean + scene.donors[:1]) / 2
        return made


def mixed(values: Values, dims: int = 2) -> ga.Chain:
    """Noise, content of others, grey and blur, whatever the number of axes."""
    some = ga.Boxes(ratio=(0.1, 0.5), side=(0.1, 0.5), dims=dims)
    steps = [ga.Noise(), ga.Alien(alone="skip"), ga.Grey(), ga.Blur(), ga.Shuffle(), ga.Noise(distribution="matched")]
    return ga.Chain([ga.InBoxes(some, step) for step in steps], values=values)


def check(corrupt: ga.Corruption, images: Tensor, dtype: torch.dtype, **options: Any) -> ga.CorruptedPair:
    """The promise, on torch's path."""
    before = images.clone()
    found: ga.CorruptedPair = corrupt.from_bytes(images, dtype=dtype, **options)
    assert same_bits(images, before)
    assert same_bits(found.clean, normalised(images, corrupt.program.values, dtype))
    given = {"donors": options["donors"]} if "donors" in options else {}
    if given:
        options["donors"] = normalised(options["donors"], corrupt.program.values, dtype)
    wanted = corrupt(found.clean, **options)
    assert same_bits(found.images, wanted.images)
    assert torch.equal(found.mask, wanted.mask)
    like = torch.empty_like(images)
    assert found.images.stride() == found.clean.stride() == like.stride()
    check_alone(corrupt, images, found, dtype=dtype, **options | given)
    return found


def check_alone(corrupt: ga.Corruption, images: Tensor, wanted: ga.CorruptedPair, **options: Any) -> None:
    """Without the clean images the others are the same, to the bit.

    Not so in Triton's interpreter, which drops bits in bfloat16: what a step reads of the clean images comes from a kernel if they
    are wanted, and from torch, which rounds, if they are not.
    """
    found = corrupt.from_bytes(images, clean=False, **options)
    assert type(found) is ga.Corrupted
    if INTERPRETS and wanted.images.dtype == torch.bfloat16:
        torch.testing.assert_close(found.images, wanted.images, rtol=2.0**-5, atol=2.0**-5)
    else:
        assert same_bits(found.images, wanted.images)
    assert torch.equal(found.mask, wanted.mask)
    assert found.images.stride() == wanted.images.stride()


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(shape=shapes(), data=st.data(), dtype=st.sampled_from(DTYPES), seed=st.integers(0, 99))
def test_the_clean_batch_is_the_normalised_one_and_the_rest_is_a_call_with_it(
    shape: tuple[int, ...], data: st.DataObject, dtype: torch.dtype, seed: int
) -> None:
    channels = shape[1]
    number = st.floats(0.05, 0.95)
    few = data.draw(st.sampled_from([1, channels]))
    known = tuple(tuple(data.draw(st.lists(number, min_size=few, max_size=few))) for _ in range(2))
    values: Values = data.draw(st.sampled_from(["unit", known]))
    check(mixed(values, len(shape) - 2), some_bytes(shape, seed), dtype, keys=some_keys(shape[0], seed))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", ["gmml", "gmml_reference", "sit", "mc_ssl", "ablation"])
def test_presets(name: str, dtype: torch.dtype) -> None:
    corrupt = getattr(ga.presets, name)(values=KNOWN)
    found = check(corrupt, some_bytes((4, 3, 40, 33)), dtype, keys=some_keys(4))
    assert found.images.dtype == dtype
    assert bool(found.mask.any())


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed", "strided", "expanded"])
def test_layouts_and_parts_of_a_large_batch(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw, "_PART_BYTES", 3 * 4 * 3 * 20 * 21)  # three images at a time, and a rest of one
    check(ga.presets.gmml(values=KNOWN), lay_out(some_bytes((7, 3, 20, 21)), layout), torch.bfloat16, keys=some_keys(7))


def test_bytes_end_within_a_rounding_of_what_statistics_say() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).expand(2, 3, 16, 16)
    mean, std = (torch.tensor(numbers, dtype=torch.float64).reshape(3, 1, 1) for numbers in KNOWN)
    found = raw.normalise(images, KNOWN, torch.float32)
    assert float((found - (images.double() / 255.0 - mean) / std).abs().max()) < 5e-7  # half a unit of 4.7, and of 2.6
    unit = raw.normalise(images, "unit", torch.float32)
    assert float(unit.min()) == 0.0
    assert float(unit.max()) == 1.0
    assert float((unit.double() - images.double() / 255.0).abs().max()) < 1e-7


def test_a_bank_of_bytes_and_maps() -> None:
    images, bank = some_bytes((3, 3, 20, 21)), some_bytes((5, 3, 20, 21), seed=1)
    corrupt, keys = ga.presets.gmml(values=KNOWN), some_keys(3)
    allowed, forced = torch.rand(3, 1, 20, 21).gt(0.2), torch.rand(1, 1, 20, 21).gt(0.9)
    check(corrupt, images, torch.float32, keys=keys, donors=bank, allowed=allowed, forced=forced)
    one = check(ga.Chain([ga.Alien()], values=KNOWN), images[:1], torch.float32, keys=keys[:1], donors=bank[:1])
    assert same_bits(one.images, raw.normalise(bank[:1], KNOWN, torch.float32))
    own = corrupt.from_bytes(images, keys=keys, donors=images)
    assert same_bits(own.images, corrupt.from_bytes(images, keys=keys).images)


def test_keys_and_generators_repeat_it() -> None:
    images, corrupt = some_bytes((3, 3, 20, 21)), ga.presets.gmml(values=KNOWN)
    one, other = (corrupt.from_bytes(images, keys=some_keys(3)) for _ in range(2))
    assert same_bits(one.images, other.images)
    assert torch.equal(one.mask, corrupt(images, keys=some_keys(3)).mask)  # where it happens does not follow from the dtype
    drawn = [corrupt.from_bytes(images, generator=torch.Generator().manual_seed(5)).mask for _ in range(2)]
    assert torch.equal(*drawn)
    assert not torch.equal(drawn[0], one.mask)
    assert one.clean.dtype == torch.bfloat16


def test_what_cannot_be_is_said_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_work(*_: Any, **__: Any) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("gmml_aug.backends.reference.paint.normalise", no_work)
    monkeypatch.setattr("gmml_aug.corruption.draw_keys", no_work)
    images, corrupt = some_bytes((3, 3, 8, 8)), ga.presets.gmml(values=KNOWN)
    wrong: list[tuple[type[Exception], str, Callable[[], object]]] = [
        (TypeError, "uint8 tensor.*not torch.float32", lambda: corrupt.from_bytes(images.float())),
        (TypeError, "not list", lambda: corrupt.from_bytes([images])),  # type: ignore[call-overload]
        (TypeError, "clean='no'.*True or False", lambda: corrupt.from_bytes(images, clean="no")),  # type: ignore[call-overload]
        (TypeError, "float64.*bfloat16", lambda: corrupt.from_bytes(images, dtype=torch.float64)),
        (TypeError, "dtype=torch.uint8. Allowed", lambda: corrupt.from_bytes(images, dtype=torch.uint8)),
        (ValueError, r"values=\(mean, std\)", lambda: ga.presets.gmml().from_bytes(images)),
        (ValueError, "donors are torch.float32", lambda: corrupt.from_bytes(images, donors=images.float())),
        (ValueError, "another image", lambda: corrupt.from_bytes(images[:1])),
        (ValueError, "keys have shape", lambda: corrupt.from_bytes(images, keys=some_keys(2))),
        (ValueError, "3 channels", lambda: corrupt.from_bytes(images[:, :2])),
        (ValueError, "allowed has shape", lambda: corrupt.from_bytes(images, allowed=torch.ones(2, 1, 8, 8, dtype=torch.bool))),
        (ValueError, "backend='cuda'", lambda: corrupt.from_bytes(images, backend="cuda")),  # type: ignore[call-overload]
    ]
    if not INTERPRETS:
        wrong.append((ValueError, 'backend="fused" cannot', lambda: corrupt.from_bytes(images, backend="fused")))
    for kind, message, call in wrong:
        with pytest.raises(kind, match=message):
            call()


class Step(torch.nn.Module):
    """What a training step does first."""

    def __init__(self) -> None:
        super().__init__()
        parts = [ga.InBoxes(ga.Boxes(count=2), ga.Alien()), ga.InBoxes(ga.Boxes(count=1), ga.Noise())]
        self.corrupt = ga.Chain(parts, values=KNOWN)

    def forward(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.corrupt.from_bytes(images, keys=keys))  # type: ignore[return-value]


def test_it_compiles_in_one_graph_for_all_batch_sizes() -> None:
    from torch._dynamo.testing import CompileCounter

    counter, step = CompileCounter(), Step()
    run = torch.compile(step, fullgraph=True, backend=counter)
    try:
        for count in (2, 7, 12, 5):
            images, keys = some_bytes((count, 3, 24, 24), seed=count), some_keys(count)
            assert all(map(same_bits, run(images, keys), step(images, keys)))
        assert counter.frame_count <= 2  # a first batch size, then any
    finally:
        torch.compiler.reset()


def test_export_takes_it() -> None:
    images, keys = some_bytes((3, 3, 24, 24)), some_keys(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        program = torch.export.export(Step(), (images, keys))
    assert all(map(same_bits, program.module()(images, keys), Step()(images, keys)))


def cut_off(wide: Tensor, dtype: torch.dtype) -> Tensor:
    """As Triton's interpreter converts float32: to bfloat16 it drops bits, where every device rounds."""
    return (wide.view(torch.int32) >> 16).to(torch.int16).view(torch.bfloat16) if dtype == torch.bfloat16 else wide.to(dtype)


def check_fused(corrupt: ga.Corruption, images: Tensor, dtype: torch.dtype, **options: Any) -> None:
    """The same clean batch and mask to the bit, and images within a rounding or two."""
    before, options["keys"] = images.clone(), some_keys(len(images)).to(images.device)
    found = corrupt.from_bytes(images, dtype=dtype, backend="fused", **options)
    wanted = corrupt.from_bytes(images, dtype=dtype, backend="torch", **options)
    assert same_bits(images, before)
    clean = cut_off(raw.normalise(images, corrupt.program.values, torch.float32), dtype) if INTERPRETS else wanted.clean
    assert same_bits(found.clean, clean)
    assert torch.equal(found.mask, wanted.mask)
    assert found.clean.stride() == found.images.stride() == torch.empty_like(images).stride()
    outside = ~found.mask.expand_as(images)
    assert same_bits(found.images[outside], found.clean[outside])
    check_alone(corrupt, images, found, dtype=dtype, backend="fused", **options)
    step = {torch.float32: 1e-5, torch.float16: 2.0**-8, torch.bfloat16: 2.0**-5}[dtype]
    torch.testing.assert_close(found.images.float(), wanted.images.float(), rtol=step, atol=step)


FIRST = [
    (ga.Blur(), torch.float32),
    (ga.Jitter(), torch.float16),
    (ga.Mean(), torch.bfloat16),
    (ga.Shuffle(), torch.float32),
]


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("first", "dtype"), FIRST, ids=repr)
def test_fused_whatever_comes_first(where: torch.device, first: ga.Fill, dtype: torch.dtype) -> None:
    images, bank = some_bytes((2, 3, 21, 19)).to(where), some_bytes((4, 3, 21, 19), seed=3).to(where)
    place = ga.Boxes(count=1, side=(0.3, 0.6), placement="inside")
    parts = [ga.InBoxes(place, first), ga.InBoxes(place, ga.Alien()), ga.InBoxes(place, Brighter())]
    corrupt = ga.Chain([*parts, ga.InBoxes(place, ga.Noise(distribution="matched"))], values=KNOWN)
    check_fused(corrupt, images, dtype, donors=bank)
    check_fused(corrupt, images, dtype, allowed=torch.rand(1, 1, 21, 19, device=where).gt(0.3))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided"])
def test_fused_layouts(where: torch.device, layout: str) -> None:
    images = lay_out(some_bytes((2, 3, 9, 19)).to(where), layout)
    check_fused(ga.presets.gmml(values=KNOWN), images, torch.float16)
    check_fused(ga.presets.gmml(values="unit"), images, torch.bfloat16, donors=images.flip(0))


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@examples(8)
@given(data=st.data(), dims=st.integers(1, 3), dtype=st.sampled_from(DTYPES))
def test_fused_any_tree(where: torch.device, data: st.DataObject, dims: int, dtype: torch.dtype) -> None:
    tree = data.draw(every_tree(dims=dims))
    channels = len(tree.values[0]) if isinstance(tree.values, tuple) else 3
    images = some_bytes((2, channels, *data.draw(small_sizes(dims=dims, least=4)))).to(where)
    values: Values = tree.values if isinstance(tree.values, tuple) else "unit"
    tree = ga.Chain(list(tree.parts), budget=tree.budget, values=values, dims=dims)
    if backend_of("triton").can(tree.program, images.shape, dtype, images.device, gradient=False) is None:
        check_fused(tree, images, dtype)


@runs_once
@few_or_all
def test_the_fused_ones_by_the_interpreter(everything: bool) -> None:
    by_interpreter(__file__, everything=everything, only="fused and not interpreter")
