"""What goes into a group of pixels: the base class of all fills, including your own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from gmml_aug.chance import Chance
from gmml_aug.corruption import Corruption
from gmml_aug.ops import Operation, Scene, Tensors
from gmml_aug.program import Builder, Scope


class Fill(Corruption, Operation):
    """What replaces or changes a group of pixels; a place says where. On its own, a fill works on the whole image.

    A fill of your own is a frozen dataclass with `pixels`, and `draw` if it needs random numbers::

        @dataclass(frozen=True)
        class Negative(gmml_aug.Fill):
            def pixels(self, scene, drawn):
                return -scene.now
    """

    replaces: ClassVar[bool] = False  # True if nothing of the content is kept; only such fills count for a budget
    reads_donors: ClassVar[bool] = False  # True if it reads `Scene.donors`

    def draw(self, chance: Chance) -> Tensors:
        """Small tensors, (B, ...) each, that say what this fill does to each image."""
        return ()

    def lower(self) -> Operation:
        """The operation of `gmml_aug.ops` that this fill stands for; by default the fill itself, through its `pixels`."""
        return self

    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The new pixels, broadcastable to (B, C, *S), in the dtype of the images; they are used where ``scene.mask`` is True."""
        raise TypeError(
            f"{type(self).__name__}: this fill computes no pixels itself; backends carry out the operation that it lowers to, "
            f"{self.lower()!r}."
        )

    def applies_to(self, shape: Sequence[int], *, donors: int, from_batch: bool) -> bool:
        """False if this fill cannot change images of this shape (it then marks nothing).

        Raises an error if the fill cannot work on such images at all.
        """
        return True

    def build(self, program: Builder, at: Scope) -> None:
        """Append one step, in the surrounding boxes or over the whole image."""
        if type(self).pixels is Fill.pixels and type(self).lower is Fill.lower:
            raise TypeError(
                f"{type(self).__name__}: a fill must define pixels. Write def pixels(self, scene, drawn), see gmml_aug.Fill."
            )
        program.step(self, at)
