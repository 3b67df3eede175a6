"""The contract: ``images -> sample(shape) -> plan -> apply -> (images, mask)``, written once for every corruption.

A corruption is written as a tree; at construction it is flattened (`program.py`), and `sample` and `apply` walk the flat list.
`sample` makes all random decisions and sees no pixels; `apply` handles the pixels and draws nothing.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Unpack, cast, overload

import torch
from torch import Tensor

from gmml_aug import call_checks, checks
from gmml_aug.backends.base import Choice, choose
from gmml_aug.backends.call import Batch, Corrupted, CorruptedPair, Given, Lengths, Maps, Painted, Ratios, Request
from gmml_aug.backends.reference.explain import Touch, explain
from gmml_aug.backends.reference.paint import step_mask
from gmml_aug.call_checks import SampledOptions
from gmml_aug.chance import draw_keys
from gmml_aug.fields import as_code
from gmml_aug.plan import Plan
from gmml_aug.program import Builder, Program, Scope

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Options = dict[str, Any]  # of `Corruption.sample`


class Corruption(ABC):
    """The base class of everything that corrupts a batch of images: fills, fills in boxes, and compositions of these.

    Corruptions are frozen dataclasses: comparable, hashable and picklable, without tensors or state, and ``eval(repr(c)) == c``.
    They work on images (B, C, *S) with the declared number of spatial axes, any C >= 1, float16, bfloat16, float32, float64 or
    uint8, any memory format and device, and behave the same in training and evaluation.
    """

    @abstractmethod
    def build(self, program: Builder, at: Scope) -> None:
        """Append this corruption's steps to the flat program."""

    def __post_init__(self) -> None:
        """Flatten the tree, once; every error in the composition is raised here."""
        builder = Builder()
        self.build(builder, Scope())
        object.__setattr__(self, "_program", builder.finish())

    __repr__ = as_code

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
        rank: int | None = None,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        ratios: Ratios | None = None,
        lengths: Lengths | None = None,
        out: Tensor | None = None,
        backend: Choice = "auto",
    ) -> Corrupted:
        """Corrupt a batch: `sample`, then `apply`.

        Args:
            images: (B, C, *S), float or uint8, on any device; never written to. A Tensor subclass counts as a plain tensor.
            generator: draws the keys, on the device of the images; by default torch's global generator.
            keys: (B,) int64 instead of a generator, for example from `gmml_aug.keys`: an image's key decides how it is corrupted.
            rank: the rank of this process, hashed into keys that are drawn here, so that processes with the same seed corrupt
                differently; by default taken from ``torch.distributed`` or the environment variable ``RANK``. Give processes that
                share their images the same number (0 on all of them to draw the same). Keys that you pass are not changed.
            donors: (N, C, *S) images that aliens are taken from instead of this batch; they must be other images, because an
                image's own copy in the bank may be drawn. Passing the batch itself counts as no bank; a bank that shares part of
                its memory is an error.
            allowed: (B or 1, 1, *S) bool; nothing happens where it is False. For a fill alone, it is the mask to fill.
            forced: (B or 1, 1, *S) bool; where it is True, the first step that works on an image works too. Both are applied
                after ratios and budgets, which limit boxes; where they conflict, ``allowed`` wins.
            ratios: (B,) floats, 0 to 1: each image's share at every place that has a ratio, instead of a drawn one; for rules
                that span a batch, such as `functional.spread_ratios`.
            lengths: (B,) integers: where the padding of each image begins along its last axis, or (B, D) along all axes. Boxes
                and bands are those of the image without its padding: they stay in the valid part, and ratios are shares of it.
            out: where the corrupted images are written; may be ``images`` itself.
            backend: which backend to use: ``"triton"`` (also ``"fused"``; CUDA, Triton 3.4 at least), ``"cpu"`` (the compiled
                core), ``"reference"`` (also ``"torch"``; any device); ``"auto"`` takes the fastest one that can. Plan and mask do
                not depend on it.

        Returns:
            The corrupted images, and the mask of the pixels that were touched; plain tensors.

        Raises:
            TypeError: images, keys or donors have a type or dtype that is not allowed.
            ValueError: a wrong rank, an empty axis, tensors on different devices, both keys and a generator, a batch of one where
                a donor from the batch is needed, ratios or lengths that do not fit, a backend that cannot do this call.
        """
        chance: Options = {"generator": generator, "keys": keys, "rank": rank, "ratios": ratios, "lengths": lengths}
        done = self._run(images, None, chance, (donors, allowed, forced), out, backend)
        return Corrupted(done.images, done.mask)

    @overload
    def from_bytes(
        self, images: Tensor, *, dtype: torch.dtype = ..., clean: Literal[True] = ..., **options: Unpack[SampledOptions]
    ) -> CorruptedPair: ...

    @overload
    def from_bytes(
        self, images: Tensor, *, dtype: torch.dtype = ..., clean: Literal[False], **options: Unpack[SampledOptions]
    ) -> Corrupted: ...

    def from_bytes(
        self,
        images: Tensor,
        *,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
        rank: int | None = None,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        ratios: Ratios | None = None,
        lengths: Lengths | None = None,
        dtype: torch.dtype = torch.bfloat16,
        clean: bool = True,
        backend: Choice = "auto",
    ) -> CorruptedPair | Corrupted:
        """Normalise a batch of bytes with this corruption's ``values`` and corrupt it, in one call.

        ``images`` (B, C, *S) and ``donors`` (N, C, *S) are uint8; ``dtype``, the dtype of the results, is float16, bfloat16 or
        float32; everything else is as in a call. The clean images, the last field of the result, are ``(b / 255 - mean) / std``,
        or ``b / 255`` for ``values="unit"``, computed in float32 and rounded once; the corrupted images and the mask are those
        that a call with these clean images returns. Where possible, the bytes are read once and both batches are written in the
        same pass.

        With ``clean=False`` the clean images are neither computed nor returned: for a loss that normalises the bytes itself, such
        as ``gmml_models.masked_l1(model(out.images), images, out.mask, values=corrupt.program.values)``.

        Raises:
            TypeError: the images are not uint8, or ``dtype`` is not allowed; also as in a call.
            ValueError: this corruption has ``values="normalised"``, so the statistics are unknown; also as in a call.
        """
        call_checks.check_bytes(images, self.program.values, dtype, clean)
        chance: Options = {"generator": generator, "keys": keys, "rank": rank, "ratios": ratios, "lengths": lengths}
        done = self._run(images, dtype, chance, (donors, allowed, forced), None, backend, clean)
        return Corrupted(done.images, done.mask) if done.clean is None else CorruptedPair(done.images, done.mask, done.clean)

    def _run(
        self,
        images: Tensor,
        dtype: torch.dtype | None,
        how: Plan | Options,
        given: Given,
        out: Tensor | None,
        backend: Choice,
        clean: bool = True,
    ) -> Painted:
        """Paint a batch by the given plan, or by one that is sampled with these options."""
        program, donors = self.program, None if given[0] is images else given[0]
        images = call_checks.check_images(images, program)
        maps = call_checks.check_maps(images, *given[1:])
        if isinstance(how, Plan):
            pool, bank = call_checks.check_fit(how, program, images, donors), None
        else:
            pool, bank = call_checks.check_donors(images, donors, program)
        if out is not None:
            checks.check_out(out, images)
        batch = Batch(images, pool, maps, out, dtype or images.dtype, clean)
        gradient = torch.is_grad_enabled() and (images.requires_grad or pool.requires_grad)
        painter = choose(backend, program, images.shape, batch.dtype, images.device, gradient=gradient)
        batch = call_checks.keep_apart(batch, program)
        if isinstance(how, Plan):
            return painter.paint(program, batch, how)
        if painter.corrupt is not None:
            request = self._request(images.shape, images.device, bank, how)
            done = painter.corrupt(program, batch, request)
            return painter.paint(program, batch, painter.plan(program, request)) if done is None else done
        plan = self.sample(images.shape, bank=bank, device=images.device, backend=backend, **how)
        return painter.paint(program, batch, plan)

    def _request(self, shape: Sequence[int], device: torch.device, bank: int | None, how: Options) -> Request:
        """The `Request` for a plan, including its keys."""
        program, options = self.program, {name: one for name, one in how.items() if name != "rank"}
        where, request = call_checks.check_sampling(program, shape, bank=bank, device=device, **options)
        if how["keys"] is not None:
            return request
        return request._replace(keys=draw_keys(request.shape[0], where, how["generator"], how["rank"]))

    def sample(
        self,
        shape: Sequence[int],
        *,
        generator: torch.Generator | None = None,
        keys: Tensor | None = None,
        rank: int | None = None,
        bank: int | None = None,
        ratios: Ratios | None = None,
        lengths: Lengths | None = None,
        device: torch.device | str | None = None,
        backend: Choice = "auto",
    ) -> Plan:
        """Make all random decisions for a batch, from its shape (B, C, *S) alone.

        ``bank`` is the number of images that aliens will be taken from; by default they come from the batch. ``device`` is the
        device of the plan; by default that of the keys or of the generator, else torch's default device. Everything else is as in
        a call. If a backend cannot sample this plan, the reference backend does; the plan is the same.

        Raises:
            TypeError: keys are not int64, or the bank is not an integer.
            ValueError: a wrong shape, both keys and a generator, tensors on different devices, a batch of one where a donor from
                the batch is needed.
        """
        program = self.program
        where, request = call_checks.check_sampling(
            program, shape, generator=generator, keys=keys, bank=bank, device=device, ratios=ratios, lengths=lengths
        )
        planner = choose(backend, program, request.shape, None, where)
        if keys is None:
            request = request._replace(keys=draw_keys(request.shape[0], where, generator, rank))
        return planner.plan(program, request)

    def apply(
        self,
        images: Tensor,
        plan: Plan,
        *,
        donors: Tensor | None = None,
        allowed: Tensor | None = None,
        forced: Tensor | None = None,
        out: Tensor | None = None,
        backend: Choice = "auto",
    ) -> Corrupted:
        """Carry out a plan; nothing here is random. ``apply(batch[i:j], plan[i:j], donors=batch)`` repeats a part of a batch.

        ``plan`` is from `sample`, of this corruption or an equal one (``values`` may differ), for images of this shape; ``donors``
        (N, C, *S) are the images that its donor numbers refer to, by default ``images``. Everything else is as in a call;
        ``allowed`` and ``forced`` are not part of a plan.

        Raises:
            TypeError: images or donors have a type or dtype that is not allowed, or the plan is not a `Plan`.
            ValueError: images, donors and plan do not fit each other.
        """
        call_checks.check_plan(plan, self.program)
        done = self._run(images, None, plan, (donors, allowed, forced), out, backend)
        return Corrupted(done.images, done.mask)

    def kinds(self, plan: Plan, *, allowed: Tensor | None = None, forced: Tensor | None = None) -> Tensor:
        """Return the number of the step that touched each pixel last, counted from 1, or 0 if none did: (B, 1, *S) uint8.

        Steps are numbered in the order of the printed code. Pass the same ``allowed`` and ``forced`` as in the
        call.
        """
        program = self.program
        call_checks.check_plan(plan, program)
        found = torch.zeros(plan.keys.shape[0], 1, *plan.shape[1:], dtype=torch.uint8, device=plan.keys.device)
        places: dict[int, Tensor] = {}
        for number in range(len(program.steps)):
            found = found.masked_fill(step_mask(program, plan, number, places, Maps(allowed, forced)), number + 1)
        return found

    def explain(self, plan: Plan, image: int, pixel: Sequence[int]) -> list[Touch]:
        """Explain what every step did to one pixel, and why: its gates, its box, and the ratio or budget that cut it.

        Args:
            plan: a plan of this corruption.
            image: number of the image in the plan.
            pixel: the position of the pixel, one integer per axis.

        Returns:
            One `Touch` per step, in order; each prints as a sentence. The effects of ``allowed`` and ``forced`` are not part of a
            plan.

        Raises:
            TypeError: ``plan`` is not a plan, or the numbers are not integers.
            ValueError: the plan belongs to another corruption, or the image or pixel does not exist.
        """
        call_checks.check_plan(plan, self.program)
        number = checks.check_integer("explain", "image", image, -len(plan), len(plan) - 1) % len(plan)
        size = plan.shape[1:]
        at = checks.plain(pixel)
        if not isinstance(at, Sequence) or len(at) != len(size):
            raise ValueError(f"explain: pixel={pixel!r} for {len(size)} spatial axes. Give one integer for each.")
        place = [checks.check_integer("explain", "pixel", one, 0, length - 1) for one, length in zip(at, size, strict=True)]
        return explain(self.program, plan[number], place)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the code that builds it, so that unpickling checks every value again."""
        fields = dataclasses.fields(cast("DataclassInstance", self))  # every leaf is a dataclass, this base is none
        return partial(type(self), **{field.name: getattr(self, field.name) for field in fields}), ()
