"""Plan: all random decisions for a batch, as small tensors."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from gmml_aug.ops import Tensors

Resolved = tuple[tuple[tuple[int, ...], bool], ...]  # per place: edges of its grid, and whether the fill works outside
_FORMATS = ("gmml_aug.Plan 1", "gmml_aug.Plan 2")  # the first did not say whose plan it is; the last one is written


@final
@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """Everything that a corruption will do to a batch: boxes after stops, trims and budgets, and the numbers that each step drew.

    A plan is a pytree that can be sliced along the batch, moved and saved. It is complete: `Corruption.apply` draws nothing.

    Attributes:
        keys: (B,) int64, the keys that the plan was sampled from.
        boxes: one tensor per place. (B, N, 2 dims) int32: dims starts, then dims sizes, in pixels; boxes need no further trimming
            and continue at the opposite border; rows of size 0 are unused. For a place whose shape is not a box: (B, 1, *S) bool,
            the pixels themselves.
        active: (B, steps) bool, True where a step works on an image.
        drawn: one tuple of (B, ...) tensors per step, depending on its fill, such as the donor, sigma, or the stream of the
            noise.
        steps: the names of the fills.
        shape: (C, *S) of the images that the plan is for.
        donors: number of images that donor numbers refer to, either the batch that the plan was sampled for or the bank.
        bank: True if they refer to a bank, which must then be passed when the plan is applied.
        fingerprint: the fingerprint of the corruption that sampled it, which is the only one that can apply it; "" in a plan of
            format 1.
        resolved: for each place, the edges of the grid that its boxes keep to (1 if there is no grid), and True if the fill works
            outside of them.
    """

    keys: Tensor
    boxes: Tensors
    active: Tensor
    drawn: tuple[Tensors, ...]
    steps: tuple[str, ...]
    shape: tuple[int, ...]
    donors: int
    bank: bool
    fingerprint: str = ""
    resolved: Resolved = ()

    def __len__(self) -> int:
        """Number of images."""
        return len(self.keys)

    def __getitem__(self, item: int | slice) -> Plan:
        """Return the plan for some of the images; ``plan[i]`` is a plan for a batch of one.

        Donors keep their numbers: give the whole batch as ``donors=`` when a part is applied.

        Raises:
            IndexError: the image does not exist.
            TypeError: the index is neither an integer nor a slice.
        """
        if not isinstance(item, slice):
            number = operator.index(item)
            if not -len(self) <= number < len(self):
                raise IndexError(f"Plan: image {number} of a plan for {len(self)} images.")
            item = slice(number, number + 1 or None)
        chosen = item
        return self._each(lambda tensor: tensor[chosen])

    def at(self, images: Tensor) -> Plan:
        """Return the plan for some of the images, selected by their numbers, (N,) int64."""
        return self._each(lambda tensor: tensor.index_select(0, images))

    def to(self, device: torch.device | str) -> Plan:
        """Return the same plan on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as a safetensors file, under a temporary name first.

        Raises:
            ModuleNotFoundError: safetensors is not installed.
        """
        from safetensors.torch import save_file

        leaves, _ = _flatten(self)
        tensors = {f"{number:04d}": leaf.detach().cpu().contiguous() for number, leaf in enumerate(leaves)}
        about = {name: json.dumps(getattr(self, name)) for name in ("shape", "bank", "steps", "resolved")}
        about |= {"format": _FORMATS[-1], "fingerprint": self.fingerprint, "donors": json.dumps(int(self.donors))}
        about |= {"boxes": json.dumps(len(self.boxes)), "drawn": json.dumps([len(step) for step in self.drawn])}
        aside = Path(f"{os.fspath(path)}.{os.getpid()}.part")
        try:
            save_file(tensors, aside, metadata=about)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """Load a plan that was written by `save`, onto the CPU.

        A file of format 1 does not record which corruption sampled it. Loading it gives a warning, and only the names and the
        number of its steps are compared when it is applied.

        Raises:
            FileNotFoundError: the file does not exist.
            ValueError: the file is not a plan.
            ModuleNotFoundError: safetensors is not installed.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"Plan: no file {os.fspath(path)}.")
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata() or {}
                if about.get("format") not in _FORMATS:
                    raise ValueError(
                        f"Plan: {os.fspath(path)} is not a saved plan ({_FORMATS[-1]!r}). Give a file that Plan.save wrote."
                    )
                leaves = [file.get_tensor(name) for name in sorted(file.keys())]
            boxes, drawn = int(json.loads(about["boxes"])), [int(n) for n in json.loads(about["drawn"])]
            shape = tuple(int(n) for n in json.loads(about["shape"]))
            steps = tuple(str(name) for name in json.loads(about["steps"]))
            if len(leaves) != 2 + boxes + sum(drawn):
                raise ValueError(
                    f"Plan: {os.fspath(path)} holds {len(leaves)} tensors, but its header says {2 + boxes + sum(drawn)}."
                )
            donors, bank = int(json.loads(about["donors"])), bool(json.loads(about["bank"]))
            first = about["format"] == _FORMATS[0]
            fingerprint = "" if first else about["fingerprint"]
            read = [] if first else json.loads(about["resolved"])
            resolved = tuple((tuple(map(int, grid)), bool(invert)) for grid, invert in read)
            plan = _unflatten(leaves, (boxes, tuple(drawn), steps, shape, donors, bank, fingerprint, resolved))
        except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"Plan: {os.fspath(path)} is damaged or not a saved plan: {error}") from error
        if not fingerprint:
            warnings.warn(
                f"Plan: {os.fspath(path)} has format 1, which does not record the corruption that sampled it: only the names of "
                "its steps can be compared. Apply it with the same corruption; Plan.save now writes format 2.",
                stacklevel=2,
            )
        return plan

    def _each(self, change: Callable[[Tensor], Tensor]) -> Plan:
        leaves, context = _flatten(self)
        return _unflatten([change(leaf) for leaf in leaves], context)

    def without_empty_rows(self) -> Plan:
        """Return the same plan without rows that no image uses; this synchronises with its device."""
        dims = len(self.shape) - 1
        kept = []
        for boxes in self.boxes:
            if boxes.dtype != torch.bool:
                used = (boxes[:, :, dims] > 0).any(0).nonzero()
                boxes = boxes[:, : int(used[-1]) + 1 if len(used) else 0]
            kept.append(boxes)
        return dataclasses.replace(self, boxes=tuple(kept))

    def __repr__(self) -> str:
        """The images, steps and donors in one line; `Corruption.explain` says what each step does to a pixel."""
        donors = f"{'a bank of ' if self.bank else ''}{self.donors}"
        return f"Plan({len(self)} images {self.shape} on {self.keys.device}, steps {list(self.steps)}, donors {donors})"

    def only(self, *steps: int) -> Plan:
        """Return the same plan with only these steps (counted from 0), to see their separate effect."""
        kept = torch.zeros_like(self.active)
        for step in steps:
            kept[:, step] = self.active[:, step]
        return dataclasses.replace(self, active=kept)


def _flatten(plan: Plan) -> tuple[list[Tensor], Any]:
    leaves = [plan.keys, plan.active, *plan.boxes, *(tensor for step in plan.drawn for tensor in step)]
    counts = tuple(len(step) for step in plan.drawn)
    return leaves, (len(plan.boxes), counts, plan.steps, plan.shape, plan.donors, plan.bank, plan.fingerprint, plan.resolved)


def _unflatten(leaves: Any, context: Any) -> Plan:
    keys, active, *rest = leaves
    boxes, counts, steps, shape, donors, bank, fingerprint, resolved = context
    drawn, at = [], boxes
    for count in counts:
        drawn.append(tuple(rest[at : at + count]))
        at += count
    return Plan(keys, tuple(rest[:boxes]), active, tuple(drawn), tuple(steps), tuple(shape), donors, bank, fingerprint, resolved)


def _flatten_with_names(plan: Plan) -> tuple[list[tuple[Any, Tensor]], Any]:
    leaves, context = _flatten(plan)
    return [(pytree.SequenceKey(number), leaf) for number, leaf in enumerate(leaves)], context


pytree.register_pytree_node(
    Plan, _flatten, _unflatten, serialized_type_name="gmml_aug.Plan", flatten_with_keys_fn=_flatten_with_names
)
