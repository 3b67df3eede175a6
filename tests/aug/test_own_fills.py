"""A fill of somebody's own: what it must return, and what it may not do, is checked by whoever calls it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from gmml_aug import ops
from gmml_aug.ops import Operation
from tests.helpers import random_images, same_bits, some_keys

IMAGES = random_images((4, 3, 16, 18))


@dataclass(frozen=True)
class Dim(ga.Fill):
    """Draws whatever it is told to."""

    returns: Any = None

    def draw(self, chance: ga.Chance) -> Any:
        factor = chance.uniform(1)
        answers: dict[str, Any] = {
            "tuple": (factor,),
            "tensor": factor,
            "list": [factor],
            "number": (0.5,),
            "row": (factor[0],),
            "single": (factor.sum(),),
        }
        return answers[self.returns]

    def pixels(self, scene: ga.Scene, drawn: Any) -> Tensor:
        made: Tensor = scene.now * drawn[0].reshape(-1, 1, 1, 1)
        return made


@pytest.mark.parametrize("returns", ["tensor", "list", "number", "row", "single"])
def test_draw_returns_a_tuple_of_tensors_with_one_entry_per_image(returns: str) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), Dim(returns))
    with pytest.raises(TypeError, match=r"Dim: draw returned .*Return a tuple of tensors.*\(4 here\)"):
        corrupt.sample(IMAGES.shape, keys=some_keys(4))
    found = ga.InBoxes(ga.Boxes(ratio=0.4), Dim("tuple"))(IMAGES, keys=some_keys(4))
    assert found.mask.any()


@dataclass(frozen=True)
class Writes(ga.Fill):
    """Doubles something in place."""

    what: str = "now"

    def pixels(self, scene: ga.Scene, drawn: Any) -> Tensor:
        target: Tensor = getattr(scene, self.what)
        return target.mul_(2.0)


@pytest.mark.parametrize("what", ["now", "clean", "donors"])
@pytest.mark.parametrize("differentiable", [False, True])
def test_a_fill_that_writes_to_what_it_should_read_is_an_error(what: str, differentiable: bool) -> None:
    images = IMAGES.clone()
    corrupt = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.4), ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.4), Writes(what))])
    given = images.clone().requires_grad_() * 1.0 if differentiable else images
    with pytest.raises(ValueError, match=r"Writes: pixels wrote to scene.now.*scene.now \* 2"):
        corrupt(given, keys=some_keys(4))


@dataclass(frozen=True)
class Returns(ga.Fill):
    """Returns something in place of pixels."""

    shape: Any

    def pixels(self, scene: ga.Scene, drawn: Any) -> Any:
        return torch.zeros(self.shape, dtype=scene.now.dtype) if isinstance(self.shape, tuple) else self.shape


@pytest.mark.parametrize("shape", [(5, 5), (4, 3, 16, 17), (1, 4, 3, 16, 18), (2, 3, 16, 18), None, 3.0], ids=str)
def test_pixels_broadcast_to_the_images(shape: Any) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), Returns(shape))
    with pytest.raises((TypeError, ValueError), match=r"Returns: pixels returned .*broadcasts? to .*\(4, 3, 16, 18\)"):
        corrupt(IMAGES, keys=some_keys(4))


@pytest.mark.parametrize("shape", [(), (1,), (18,), (3, 1, 1), (4, 3, 16, 18), (4, 1, 16, 1)], ids=str)
def test_any_shape_that_broadcasts_is_taken(shape: tuple[int, ...]) -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), Returns(shape))
    with torch.inference_mode():
        found = corrupt(IMAGES, keys=some_keys(4))
    zeros = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Zeros())(IMAGES, keys=some_keys(4))
    assert same_bits(found.images, zeros.images)


@dataclass(frozen=True)
class Unknown(ga.Fill):
    """A fill that lowers to an operation which nobody carries out."""

    def lower(self) -> Operation:
        return Nobody()


@dataclass(frozen=True)
class Nobody(Operation):
    """An operation without functions."""


@dataclass(frozen=True)
class Empty(ga.Fill):
    """Neither pixels nor an operation."""


def test_an_operation_that_no_backend_has_is_an_error_before_any_work() -> None:
    corrupt, state = ga.InBoxes(ga.Boxes(ratio=0.4), Unknown()), torch.get_rng_state()
    for call in (lambda: corrupt(IMAGES), lambda: corrupt.sample(IMAGES.shape)):
        with pytest.raises(
            ValueError, match=r"there is no function that carries out Nobody, the operation of Unknown\. .*register_operation"
        ):
            call()
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TypeError, match=r"Empty: a fill must define pixels"):
        ga.InBoxes(ga.Boxes(ratio=0.4), Empty())


def test_a_function_is_registered_for_a_fill_or_an_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_FUNCTIONS", {})
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), Unknown())
    ga.register_operation(Nobody, "reference", lambda operation, scene, drawn: scene.now * 2)
    found = corrupt(IMAGES, keys=some_keys(4))
    assert same_bits(found.images, torch.where(found.mask, IMAGES * 2, IMAGES))
    ga.register_operation(Dim, "reference", lambda fill, scene, drawn: scene.now * 3)
    found = ga.InBoxes(ga.Boxes(ratio=0.4), Dim("tuple"))(IMAGES, keys=some_keys(4), backend="reference")
    assert same_bits(found.images, torch.where(found.mask, IMAGES * 3, IMAGES))


def test_what_cannot_be_registered() -> None:
    for given, kind, says in (
        ((ga.Noise(), "cpu", print), TypeError, r"kind=Noise\(\) is not a class of fill"),
        ((int, "cpu", print), TypeError, "is not a class of fill"),
        ((Dim, "cuda", print), ValueError, "backend='cuda' is unknown. Allowed: 'reference', 'cpu', 'triton'"),
        ((Dim, "cpu", 3), TypeError, "function=3 cannot be called"),
    ):
        with pytest.raises(kind, match=says):
            ga.register_operation(*given)
