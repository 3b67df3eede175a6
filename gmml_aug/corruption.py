"""The contract: ``images -> sample(shape) -> plan -> apply -> (images, mask)``, written once for every corruption.

A corruption is a tree that people write; at construction it is made flat (`program.py`), and `sample` and `apply` walk that flat
list. `sample` is all chance and no pixels, `apply` all pixels and no chance.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor

from gmml_aug import call_checks as fit
from gmml_aug import checks
from gmml_aug import values as raw
from gmml_aug.backends.base import decide
from gmml_aug.backends.reference.paint import Bounds, paint, paint_in_groups, step_mask
from gmml_aug.chance import Chance, draw_keys
from gmml_aug.functional import blend_, like
from gmml_aug.plan import Plan, Tensors
from gmml_aug.program import Context, Program, Scene, Writer, pixels_by
from gmml_aug.values import CorruptedPair

Backend = Literal["auto", "torch", "fused"]

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Corrupted(NamedTuple):
    """What a corruption returns.

    Attributes:
        images: (B, C, *S), dtype, device and memory format of the input.
        mask: (B, 1, *S) bool, True where a step changed a pixel or was free to.
    """

    images: Tensor
    mask: Tensor


class Corruption(ABC):
    """Something that corrupts a batch of images: a fill, boxes with fills in them, or a composition of these.

    Corruptions are frozen dataclasses: comparable, hashable, picklable, without tensors or state; ``eval(repr(c)) == c``. They
    work on images (B, C, *S) with the declared number of spatial axes, any C >= 1, float16, bfloat16, float32, float64 or uint8,
    any memory format and device, and behave the same in training and evaluation.
    """

    @abstractmethod
    def write(self, program: Writer, at: Context) -> None:
        """Append this corruption's steps to the flat program."""

    def __post_init__(self) -> None:
        """Make the tree flat, once; every error of the composition is raised here."""
        writer = Writer()
        self.write(writer, Context())
        object.__setattr__(self, "_program", writer.finish())

    @property
    def program(self) -> Program:
        """The flat list of steps that `sample` and `apply` walk."""
        if "_program" not in self.__dict__:  # a fill of somebody's own whose __post_init__ does not call ours
            Corruption.__post_init__(self)
        return cast(Program, self.__dict__["_program"])

    def __call__(
        self,
        images: Tensor,
        *,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        out: Tensor | None = None,
        backend: Backend = "auto",
    ) -> Corrupted:
        """Corrupt a batch: `sample`, then `apply`.

        Args:
            images: (B, C, *S), float or uint8, on any device; never written to.
            generator: where the keys are drawn from, on the device of the images; by default torch's own generator.
            keys: (B,) int64 instead, for example from `gmml_aug.keys`: what happens to an image follows from its key.
            donors: (N, C, *S) images that aliens are taken from instead of this batch; other ones, for none is left out of them.
            allowed: (B or 1, 1, *S) bool; nothing happens where it is False. With a fill alone it is a mask of your own.
            forced: (B or 1, 1, *S) bool; where it is True, the first step that works on an image works too. Both come after ratios
                and budgets, which are about boxes; ``allowed`` has the last word.
            out: where the corrupted images are written; may be ``images`` itself.
            backend: ``"fused"`` for the Triton kernels (CUDA, Triton 3.4 at least), ``"torch"`` to refuse them;
                ``"auto"`` takes them where they can do the work. Plan and mask are the same.

        Returns:
            The corrupted images, and the mask of the pixels that were touched.

        Raises:
            TypeError: images, keys or donors of a type or dtype that is not allowed.
            ValueError: a wrong rank, an empty axis, things on different devices, both keys and a generator, a batch of one
                where a donor from the batch is needed.
        """
        bank = fit.check_call(images, self.program, donors, allowed, forced, backend)
        if out is not None:
            checks.check_out(out, images)
        plan = self.sample(images.shape, generator=generator, keys=keys, bank=bank, device=images.device, backend=backend)
        return self.apply(images, plan, donors=donors, allowed=allowed, forced=forced, out=out, backend=backend)

    def from_bytes(
        self,
        images: Tensor,
        *,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        dtype: torch.dtype = torch.bfloat16,
        backend: Backend = "auto",
    ) -> CorruptedPair:
        """Normalise a batch of bytes by this corruption's ``values`` and corrupt it: what a training loop needs of its images.

        ``clean`` is ``(b / 255 - mean) / std``, or ``b / 255`` for ``values="unit"``, computed in float32 and rounded once to
        ``dtype``; ``images`` and ``mask`` are those of a call with ``clean``. The kernels read the bytes once, and write
        both batches as they are made.

        Args:
            images: (B, C, *S) uint8; never written to.
            generator: as in a call.
            keys: as in a call.
            donors: (N, C, *S) uint8, normalised likewise.
            allowed: as in a call.
            forced: as in a call.
            dtype: of the results: float16, bfloat16 or float32.
            backend: as in a call.

        Raises:
            TypeError: images that are not uint8, another dtype; and what a call raises.
            ValueError: this corruption has ``values="normalised"``, which does not say by what; and what a call raises.
        """
        raw.check(images, self.program.values, dtype)
        bank = fit.check_call(images, self.program, donors, allowed, forced, backend)
        plan = self.sample(images.shape, generator=generator, keys=keys, bank=bank, device=images.device, backend=backend)
        fuse = fit.wants_fused(backend, self.program, images, images if donors is None else donors)
        return raw.paint(self, images, plan, dtype, donors=donors, allowed=allowed, forced=forced, fuse=fuse)

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
        bank: int | None = None,
        device: torch.device | str | None = None,
        backend: Backend = "auto",
    ) -> Plan:
        """Decide everything that chance decides, from the shape of a batch alone.

        Args:
            shape: (B, C, *S).
            generator: where the keys are drawn from.
            keys: (B,) int64 instead.
            bank: number of images that aliens will be taken from; by default they come from the batch.
            device: of the plan; by default that of the keys or of the generator, else torch's default.
            backend: as in a call; what `fused_plan` does not know is sampled by torch there too, and the plan is the same.

        Raises:
            TypeError: keys that are not int64, a bank that is not an integer.
            ValueError: a wrong shape, both keys and a generator, things on different devices, a batch of one where a donor from
                the batch is needed.
        """
        program = self.program
        shape = checks.check_shape(shape, program.dims)
        where = fit.check_chance(device, keys, generator, bank, shape[0])
        donors, own = (shape[0], True) if bank is None else (bank, False)
        works = [step.fill.works(shape, donors=donors, own=own) for step in program.steps]
        fit.check_size(shape, program)
        fuse = fit.wants_fused_plan(backend, where)
        if keys is None:
            keys = draw_keys(shape[0], where, generator)
        return decide(program, keys, shape, works, donors=donors, own=own, fuse=fuse)

    def apply(
        self,
        images: Tensor,
        plan: Plan,
        *,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        out: Tensor | None = None,
        backend: Backend = "auto",
    ) -> Corrupted:
        """Do what a plan says; no chance in here.

        ``apply(batch[i:j], plan[i:j], donors=batch)`` repeats a part of a batch.

        Args:
            images: (B, C, *S) of the shape that the plan was sampled for.
            plan: from `sample`, of this corruption or an equal one (``values`` may differ).
            donors: (N, C, *S) the images that the plan's donor numbers refer to; by default ``images``.
            allowed: as in a call; no part of the plan.
            forced: likewise.
            out: where the corrupted images are written; may be ``images`` itself.
            backend: as in a call.

        Raises:
            TypeError: images or donors of a type or dtype that is not allowed, a plan that is no plan.
            ValueError: images, donors or a plan that do not fit each other.
        """
        program = self.program
        fit.check_images(images, program)
        fit.check_plan(plan, program)
        fit.check_fit(plan, images)
        bounds = fit.bounds(images, allowed, forced)
        pool = fit.pool(plan, program, images, donors)
        clean = images
        if out is not None:
            checks.check_out(out, images)
            if fit.share_memory(out, pool) and program.foreign:
                pool = pool.clone()  # written to while others still read from it
            if fit.share_memory(out, images) and out.data_ptr() != images.data_ptr():
                clean = images.clone()
        if fit.wants_fused(backend, program, clean, pool):
            from gmml_aug.backends.triton import paint as fused

            apart = None if out is None or fit.share_memory(out, images) else out  # kernels read while others write
            made = fused.paint(program, clean, pool, plan, bounds, out=apart)
            return Corrupted(made.images if out is None or out is apart else out.copy_(made.images), made.mask)
        differentiable = torch.is_grad_enabled() and (images.requires_grad or pool.requires_grad)
        if images.device.type != "cpu" or torch.compiler.is_compiling() or differentiable:
            done = Corrupted(*paint(program, clean, pool, plan, bounds))
            return done if out is None else Corrupted(out.copy_(done.images), done.mask)
        result = torch.empty_like(images) if out is None else out
        return Corrupted(result, paint_in_groups(program, result, clean, pool, plan, bounds))

    def kinds(self, plan: Plan, *, allowed: Tensor | None = None, forced: Tensor | None = None) -> Tensor:
        """Who did what: (B, 1, *S) uint8, the number (from 1) of the last step that touched a pixel, 0 where none did.

        Steps are numbered in the order in which they stand in the printed code. Give ``allowed`` and ``forced`` as at the call.
        """
        program = self.program
        fit.check_plan(plan, program)
        found = torch.zeros(plan.keys.shape[0], 1, *plan.shape[1:], dtype=torch.uint8, device=plan.keys.device)
        places: dict[int, Tensor] = {}
        for number in range(len(program.steps)):
            found = found.masked_fill(step_mask(program, plan, number, places, Bounds(allowed, forced)), number + 1)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the code that builds it, so that unpickling checks every value again."""
        fields = dataclasses.fields(cast("DataclassInstance", self))  # every leaf is a dataclass, this base is none
        return _rebuild, (type(self), {field.name: getattr(self, field.name) for field in fields})


class Fill(Corruption):
    """What goes into a group of pixels; where and how much are not its business. On its own it fills the whole image.

    A fill of one's own is a frozen dataclass with `pixels`, and `draw` if it needs chance::

        @dataclass(frozen=True)
        class Negative(gmml_aug.Fill):
            def pixels(self, scene, drawn):
                return -scene.now
    """

    replaces: ClassVar[bool] = False  # True if nothing of the content is kept; only such fills count for a budget
    foreign: ClassVar[bool] = False  # True if it reads `Scene.donors`

    def draw(self, chance: Chance) -> Tensors:
        """Small tensors, (B, ...) each, that say what this fill does to each image."""
        return ()

    @abstractmethod
    def pixels(self, scene: Scene, drawn: Tensors) -> Tensor:
        """The new pixels, broadcastable to (B, C, *S), in the dtype of the images; they are used where ``scene.mask`` is True."""

    def put(self, scene: Scene, drawn: Tensors) -> None:
        """Write the new pixels into ``scene.now`` where the mask is True: on the CPU, for fills that find a cheaper way there."""
        blend_(scene.now, like(pixels_by(self, scene, drawn), scene.now), scene.mask)

    def works(self, shape: Sequence[int], *, donors: int, own: bool) -> bool:
        """False if this fill cannot change images of this shape (it then marks nothing); raises if it cannot work on them."""
        return True

    def write(self, program: Writer, at: Context) -> None:
        """Append one step: in the boxes around it, or over the whole image."""
        program.step(self, at)


def _rebuild(kind: type, fields: dict[str, Any]) -> Any:
    return kind(**fields)
