"""Paint with the compiled core: runs of operations, and between them the fills that make their own pixels."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from gmml_aug.backends.call import Batch, Painted, Request
from gmml_aug.backends.cpu import layout
from gmml_aug.backends.cpu.library import library, run, threads_for
from gmml_aug.backends.cpu.picture import OPERATIONS, Form, asks, empty, picture
from gmml_aug.backends.cpu.plan import Prepared, prepared
from gmml_aug.backends.kept import Kept
from gmml_aug.backends.reference import paint as reference
from gmml_aug.backends.reference.pixels import ask
from gmml_aug.functional import like
from gmml_aug.ops import Convolve, Scene, function_of
from gmml_aug.plan import Plan, Resolved
from gmml_aug.program import Program
from gmml_aug.tensors import followed
from gmml_aug.values import normalise

_NUMBER = 1.0  # nanoseconds of work for each number of an image, more or less
_LARGE = 2 << 20  # bytes of a result for which large pages are asked
_ACTIVE, _PROGRAM = 14, 19  # where a call has them
_WRONG: Final = ("", "a box", "a donor", "a shift", "a number of taps", "a sigma")


def can(program: Program, shape: Sequence[int], dtype: torch.dtype | None, device: torch.device, *, gradient: bool) -> str | None:
    """None, or the reason why this backend cannot be used."""
    if device.type != "cpu":
        return f"the compiled core works on the CPU, not on {device}"
    if gradient:
        return "the compiled core gives no gradients to the images"
    if followed():
        return "the compiled core does not work in compiled code, traces, function transforms or forward-mode derivatives"
    core = library()
    return core if isinstance(core, str) else _unable(program)


def _reason(program: Program) -> str | None:
    for step in program.steps:
        operation = step.operation
        if isinstance(operation, Convolve) and operation.taps[1] > layout.MOST_TAPS:
            return f"the compiled core blurs with up to {layout.MOST_TAPS} taps, not {operation.taps[1]}"
        if type(operation) not in OPERATIONS and function_of(operation, "cpu") is None:
            return reference.can(program, (), None, torch.device("cpu"), gradient=False)
    return None


_unable = Kept(_reason)


def paint(program: Program, batch: Batch, plan: Plan) -> Painted:
    """Carry out a plan.

    Raises:
        ValueError: the plan does not fit the images.
    """
    call = _Call(program, batch, plan.resolved)
    call.follow(plan)
    first = 0
    for number in (*call.picture.asked, len(program.steps)):
        if number > first or number == 0:
            call.run(first, number)
        if number < len(program.steps):
            call.ask(number, plan)
        first = number + 1
    return call.painted()


def corrupt(program: Program, batch: Batch, request: Request) -> Painted | None:
    """Plan each image just before it is painted, so that no plan of the whole batch is ever allocated.

    Returns:
        The same result as `paint` with a sampled plan; None if a plan of the whole batch is needed: for fills that draw their own
        numbers or make their own pixels, for places that the reference draws, and if several threads share an image.
    """
    kept = prepared(program, request)
    alone = threads_for(batch.images.numel() * _NUMBER) <= len(batch.images)
    if kept is None or kept.asked or asks(program) or not alone:
        return None
    call = _Call(program, batch, kept.resolved)
    call.draw(request, kept)
    call.run(0, len(program.steps))
    return call.painted()


class _Call:
    """One call, with its tensors in the form in which the core reads and writes them."""

    def __init__(self, program: Program, batch: Batch, resolved: Resolved) -> None:
        images, donors, maps, out, dtype, wanted = batch
        self.done = done = torch.empty_like(images, dtype=dtype) if out is None else out
        count, channels, *size = images.shape
        form = _format_of(done)
        # other layouts get a copy, and so does what requires gradients: torch itself must write to it, or refuse
        plain = form is not None and not done.requires_grad
        form = form or torch.contiguous_format
        self.program, self.batch, self.own_memory = program, batch, 0
        self.now = done if plain else torch.empty(done.shape, dtype=dtype, device="cpu", memory_format=form)
        self.source = images.contiguous(memory_format=form)
        same = donors is images or not program.reads_donors
        self.pool = self.source if same else donors.contiguous(memory_format=form)
        last, bytes_ = form is not torch.contiguous_format, int(batch.from_bytes)
        if bytes_ and not wanted and threads_for(self.now.numel() * _NUMBER) <= count and not asks(program):
            bytes_ = layout.ONE_CLEAN
        self.clean = torch.empty_like(self.now) if bytes_ == 1 else None
        self.picture = picture(program, (channels, *size), dtype, bytes_, last, resolved)
        self.mask = empty(count, self.picture.mask)
        self.kept: list[Tensor] = []  # whose addresses the call has
        clean = 0 if self.clean is None else self.clean.data_ptr()
        call = [count, self.pool.shape[0], 0, 0, 1, 1, layout.ALL, 0, self.source.data_ptr(), self.pool.data_ptr()]
        call += [self.now.data_ptr(), clean, 0, self.mask.data_ptr(), 0]
        addresses, apart = [0, 0], [0, 0]
        for n, one in enumerate(maps):
            if one is not None:
                addresses[n] = self._address(one, len(one), self.picture.mask)
                apart[n] = 0 if len(one) == 1 else math.prod(size)
        self.call = array("q", call + addresses + apart + [0, 0, 0])
        if out is None:
            for one in (self.now, self.mask, self.clean):
                if one is not None and one.nbytes >= _LARGE:
                    library().gmml_new_memory(one.data_ptr(), one.nbytes)

    def follow(self, plan: Plan) -> None:
        """Paint by a plan.

        Raises:
            ValueError: the plan does not fit the images.
        """
        count, columns = self.now.shape[0], 2 * (self.now.ndim - 2)
        self.call[_ACTIVE] = self._address(plan.active, count, self.picture.active)
        self.call.extend(self._places(plan, count, columns) + self._drawn(plan, count))
        wrong = library().gmml_check(self.picture.address, self.call.buffer_info()[0])
        if wrong:
            shape = tuple(self.now.shape)
            raise _damaged(f"{_WRONG[wrong]} that images of shape {shape} and {len(self.pool)} donors do not have")

    def draw(self, request: Request, kept: Prepared) -> None:
        """Plan each image and paint it at once."""
        keys = request.keys.contiguous()
        self.kept.append(keys)
        self.call[_PROGRAM], self.call[_PROGRAM + 1], self.call[_PROGRAM + 2] = kept.address, keys.data_ptr(), request.from_batch
        self.own_memory = kept.own_memory

    def painted(self) -> Painted:
        """What was made."""
        done, clean = self.done, self.clean if self.batch.clean else None
        if self.now is not done:
            return Painted(done.copy_(self.now), self.mask, None if clean is None else torch.empty_like(done).copy_(clean))
        if self.batch.out is not None and not done.is_inference():
            torch.autograd.graph.increment_version(done)  # torch has not seen that it was written to
        return Painted(done, self.mask, clean)

    def _address(self, one: Tensor, count: int, form: Form) -> int:
        """The address of a tensor of the plan, converted to the form that the core reads."""
        if one.shape != (count, *form.tail):
            raise _damaged(f"a tensor of shape {tuple(one.shape)} where {(count, *form.tail)} is expected")
        if one.dtype != form.dtype or not one.is_contiguous():
            one = one.to(form.dtype).contiguous()
            self.kept.append(one)
        return one.data_ptr()

    def _places(self, plan: Plan, count: int, columns: int) -> list[int]:
        """The address and the number of rows of every place of the plan."""
        found = []
        for place in plan.boxes:
            if place.dtype == torch.bool:
                found += [self._address(place, count, self.picture.mask), -1]
            else:
                rows = place.shape[1]
                found += [self._address(place, count, Form(torch.int32, (rows, columns))), rows]
        return found

    def _drawn(self, plan: Plan, count: int) -> list[int]:
        """The addresses of the tensors that every step drew, two per step."""
        found = []
        for drawn, wanted in zip(plan.drawn, self.picture.drawn, strict=True):
            if len(drawn) < len(wanted):
                raise _damaged(f"{len(drawn)} tensors for a step that draws {len(wanted)}")
            found += [self._address(one, count, form) for one, form in zip(drawn, wanted, strict=False)]
            found += [0] * (2 - len(wanted))
        return found

    def run(self, first: int, end: int) -> None:
        """Paint steps ``first`` to ``end - 1``, which are operations of the core."""
        images = self.now.shape[0]
        threads = threads_for(self.now.numel() * _NUMBER)
        if threads <= images:
            self._pass(first, end, threads)
            return
        # few large images: bands of lines, all of them after each step that reads around its pixels
        bands = -(-threads // images)
        self._pass(first, first, threads, bands)
        aside = None
        for blur in [*(number for number in self.picture.blurs if first <= number < end), end]:
            if blur > first:
                self._pass(first, blur, threads, bands)
            if blur < end:
                aside = torch.empty_like(self.now) if aside is None else aside
                self._pass(blur, blur + 1, threads, bands, layout.READ, aside.data_ptr())
                self._pass(blur, blur + 1, threads, bands, layout.MERGE, aside.data_ptr())
            first = blur + 1

    def _pass(self, first: int, end: int, threads: int, bands: int = 1, phase: int = layout.ALL, aside: int = 0) -> None:
        call, memory = self.call, self.picture.memory.get(bands)
        if memory is None:
            memory = self.picture.memory[bands] = library().gmml_paint_memory(self.picture.address, bands)
        call[2], call[3], call[5], call[6], call[7], call[12] = first, end, bands, phase, 0, aside
        run(library().gmml_paint, self.picture.address, call, memory + self.own_memory, threads)
        call[4] = 0  # the images stand in the result

    def ask(self, number: int, plan: Plan) -> None:
        """Paint a step whose fill makes its own pixels, on the images on which it works."""
        if self.call[4]:
            self.run(0, 0)
        rows = plan.active[:, number].nonzero()[:, 0]
        if not len(rows):
            return
        operation, values = self.program.steps[number].operation, self.program.values
        donors = self.batch.donors
        if self.clean is not None:
            donors = self.clean if donors is self.batch.images else normalise(donors, values, self.now.dtype)
        plan, maps, mask = plan.at(rows), self.batch.maps.at(rows), self.mask.index_select(0, rows)
        now, clean = (one.index_select(0, rows) for one in (self.now, self.source if self.clean is None else self.clean))
        here = reference.step_mask(self.program, plan, number, {}, maps)
        function = function_of(operation, "cpu") or function_of(operation, "reference")
        assert function is not None  # `can` has asked
        made = ask(operation, function, Scene(now, clean, donors, here, values), plan.drawn[number])
        self.now.index_copy_(0, rows, torch.where(here, like(made, now), now))
        self.mask.index_copy_(0, rows, mask | here)


def _format_of(images: Tensor) -> torch.memory_format | None:
    """The memory format of the images; None if they are neither contiguous nor channels last."""
    if images.is_contiguous():
        return torch.contiguous_format
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(images.ndim)
    return last if last is not None and images.is_contiguous(memory_format=last) else None


def _damaged(what: str) -> ValueError:
    return ValueError(f"gmml_aug: the plan has {what}. It is damaged, or was sampled for other images; sample a new one.")
