"""Corruption inside ``torchvision.transforms.v2.Compose``. This module needs torchvision, and is imported on first use."""

from __future__ import annotations

import dataclasses
import math
from collections import OrderedDict, defaultdict
from typing import Any, final

import PIL.Image
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from gmml_aug.adapters.loops import check_corruption
from gmml_aug.backends.call import Corrupted
from gmml_aug.chance import stream, to_uniform
from gmml_aug.checks import check_integer, check_number
from gmml_aug.corruption import Corruption
from gmml_aug.plan import Plan
from gmml_aug.tensors import DTYPES

Path = tuple[Any, ...]

_WHO = "torchvision_adapter.Corrupt"
_GATE = -1  # a corruption numbers its streams from 0
_IMAGE = "image"  # what a field is called that nobody else's tensor is taken for


def _is_plain(one: object) -> bool:
    return isinstance(one, Tensor) and not isinstance(one, tv_tensors.TVTensor)


@final
class Corrupt(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """A corruption as a ``v2.Transform``, for batches, single images and clips.

    **Which field is the image.** It is the ``tv_tensors.Image`` of the sample; if there is none, the ``tv_tensors.Video``; if
    there is neither, the plain tensor in the field ``"image"``, or else, as everywhere in torchvision, the first plain tensor.
    ``image=`` names another field. Everything else passes through unchanged, including masks and boxes. PIL images are refused:
    put ``v2.ToImage()`` first.

    **The mask.** A dict comes back with two more keys, ``"mask"`` and ``"clean"``, anything else as a tuple with the mask last:
    ``image, mask = t(image)``. They are a ``tv_tensors.Mask`` and an ``Image`` (or ``Video``), so that later flips and crops treat
    them like the image; end with ``v2.ToPureTensor()`` to compute with them. With ``mask=False`` a sample
    keeps its structure; several images in a sample are corrupted in the same way, and a sample without images is returned
    unchanged.

    **Random numbers** come from ``generator``, or else from torch's global generator, which a DataLoader seeds in every worker.
    ``make_params([image])`` is ``{"plan": plan}``, drawn once per call; ``transform(image, {"plan": plan})`` repeats it, also with
    a saved plan. All frames of a clip are corrupted in the same way, and an `Alien` is the same frame of another clip.

    Args:
        corrupt: the corruption to apply. On a ``Video``, a corruption with three spatial axes works on time, height and width.
        p: probability that an image is corrupted. Use it instead of ``v2.RandomApply``, which would leave some samples without a
            mask; here an untouched image has an empty mask.
        image: the field that holds the image: a key of a dict, or a position in a tuple or list.
        mask: True to also return the mask and the clean image.
        generator: draws the keys, on the device of the images; not allowed in the worker of a DataLoader.
        donors: (N, C, *S) images that aliens are taken from. A single image has no neighbours in a batch, so `Alien` needs them.
        rank: the rank of this process, as in `Corruption.__call__`.

    Shapes:
        (..., C, *S) images or (..., T, C, H, W) videos with any leading axes, float or uint8 -> the same shape, dtype and class;
        mask (..., 1, *S) or (..., T, 1, H, W) bool.

    Raises:
        TypeError: ``corrupt`` is not a corruption; at the call, the image is a PIL image, or the field ``"image"`` is not a
            tensor.
        ValueError: ``p`` is outside [0, 1]; at the call, there is no image, or there are several images for one mask, field names
            are already used, a generator is used in a worker, or an `Alien` has no donors.
    """

    _transformed_types = (tv_tensors.Image, tv_tensors.Video, _is_plain)

    def __init__(
        self,
        corrupt: Corruption,
        *,
        p: float = 1.0,
        image: str | int | None = None,
        mask: bool = True,
        generator: torch.Generator | None = None,
        donors: Tensor | None = None,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        self.corrupt = check_corruption(_WHO, corrupt)
        self.p = check_number(_WHO, "p", p, 0.0, 1.0)
        if image is not None and not isinstance(image, str):
            image = check_integer(_WHO, "image", image, 0)
        self.image, self.mask, self.generator, self.donors = image, mask, generator, donors
        self.rank = None if rank is None else check_integer(_WHO, "rank", rank, 0)

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse PIL images, which would pass through unchanged."""
        if any(isinstance(one, PIL.Image.Image) for one in flat_inputs):
            raise TypeError(f"{_WHO}: got a PIL image. Only tensors are accepted: put v2.ToImage() before it.")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the plan for the image: ``{"plan": plan}``, see `gmml_aug.Plan`; for images of several shapes ``{"plans": ...}``.

        All images of a sample share the same keys, and those of equal shape share a plan.
        """
        if self.generator is not None and get_worker_info() is not None:
            raise ValueError(
                f"{_WHO}: a generator cannot be used in the worker of a DataLoader. Every worker has a copy of it and would draw "
                f"the same numbers; leave it out, since torch's own generator is seeded per worker."
            )
        plans: dict[tuple[int, ...], Plan] = {}
        chance: dict[str, Any] = {"generator": self.generator, "rank": self.rank}
        images = [(self._folded(one), one.device) for one in flat_inputs if isinstance(one, Tensor)]
        for (shape, _), device in sorted(images, key=lambda found: -found[0][0][0]):
            if shape in plans or shape[0] == 0:
                continue
            bank = None if self.donors is None else self.donors.shape[0]
            if plans:
                chance = {"keys": next(iter(plans.values())).keys[: shape[0]].to(device)}
            plan = self.corrupt.sample(shape, bank=bank, device=device, **chance)
            if self.p < 1.0:
                happens = to_uniform(stream(plan.keys, _GATE)) < self.p
                plan = dataclasses.replace(plan, active=plan.active & happens[:, None])
            plans[shape] = plan
        return {"plan": next(iter(plans.values()), None)} if len(plans) < 2 else {"plans": plans}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Apply the plan in ``params`` to the image; nothing here is random."""
        (shape, frames), batch = self._folded(inpt), inpt.as_subclass(Tensor)
        plan = params["plans"].get(shape) if "plans" in params else params["plan"]
        volume = isinstance(inpt, tv_tensors.Video) and self.corrupt.program.dims == 3
        if volume:  # (..., T, C, H, W), time is an axis of the image
            batch = batch.movedim(-4, -3)
        lead = batch.shape[: -len(shape) + 1]
        if plan is None or not batch.numel():
            images, mask = batch, batch.new_zeros((*lead, 1, *shape[2:]), dtype=torch.bool)
        else:
            one, other = self._apply(batch.reshape(-1, *shape[1:]), plan, frames)
            images, mask = one.reshape(batch.shape), other.reshape(*lead, 1, *shape[2:])
        if volume:
            images, mask = images.movedim(-3, -4), mask.movedim(-3, -4)
        params["mask"] = tv_tensors.Mask(mask)  # of this call alone: forward, which asked for it, picks it up
        return images if _is_plain(inpt) else tv_tensors.wrap(images, like=inpt)

    def forward(self, *inputs: Any) -> Any:
        """Corrupt the image of a sample; the class describes what is returned."""
        sample = inputs[0] if len(inputs) == 1 else inputs
        flat, spec = pytree.tree_flatten(sample)
        paths = _paths(sample)
        self.check_inputs(flat)
        chosen = self._choose(paths, flat)
        if self.mask:
            self._check_one(sample, [paths[number] for number in chosen])
        params = self.make_params([flat[number] for number in chosen])
        done = list(flat)
        for number in chosen:
            done[number] = self.transform(flat[number], params)
        if not self.mask:
            return pytree.tree_unflatten(done, spec)
        (number,) = chosen
        if not isinstance(sample, dict):
            whole = pytree.tree_unflatten(done, spec)
            return (*whole, params["mask"]) if isinstance(whole, tuple | list) else (whole, params["mask"])
        clean = flat[number]
        if _is_plain(clean):  # plain tensors are left alone by later transforms once there is an Image
            clean, done[number] = tv_tensors.Image(clean), tv_tensors.Image(done[number])
        return {**pytree.tree_unflatten(done, spec), "clean": clean, "mask": params["mask"]}

    def extra_repr(self) -> str:
        """The code that builds the corruption."""
        return repr(self.corrupt) + (f", p={self.p}" if self.p < 1.0 else "")

    def _choose(self, paths: list[Path], flat: list[Any]) -> list[int]:
        """The positions of the images among the leaves of a sample."""
        if self.image is not None:
            chosen = [number for number, path in enumerate(paths) if _is_called(path, self.image)]
            if not chosen or not all(isinstance(flat[number], Tensor) for number in chosen):
                came = ", ".join(sorted({type(flat[number]).__name__ for number in chosen})) or "nothing"
                raise ValueError(
                    f"{_WHO}: image={self.image!r} holds {came}, in a sample with the fields {_fields(paths)}. Name the field that "
                    "holds the image as a tensor; v2.ToImage() makes one."
                )
            return chosen
        kinds = (tv_tensors.Image, tv_tensors.Video)
        explicit = [[number for number, one in enumerate(flat) if isinstance(one, kind)] for kind in kinds]
        chosen = explicit[0] or explicit[1]
        plain = [number for number, one in enumerate(flat) if _is_plain(one)]
        if chosen or not plain:
            return chosen
        called = [number for number, path in enumerate(paths) if path and _is_called(path[-1:], _IMAGE)]
        for number in called:
            if not isinstance(flat[number], Tensor):
                raise TypeError(
                    f"{_WHO}: the field 'image' holds {type(flat[number]).__name__}, which is not a tensor, and no other field is "
                    "used in its place. Put "
                    f"v2.ToImage() before it, or name the field that holds the image with image=..."
                )
        first = (called or plain)[0]
        one = flat[first]
        if len(plain) > 1 and (one.dtype not in DTYPES or one.ndim <= self.corrupt.program.dims):
            raise ValueError(
                f"{_WHO}: in a sample without tv_tensors, the image is the field 'image' or the first plain tensor, which here is "
                f"{one.dtype} {tuple(one.shape)}. Name the field that holds the image with image=..., one of {_fields(paths)}."
            )
        return [first]

    def _check_one(self, sample: Any, chosen: list[Path]) -> None:
        """Check that there is one image for the one mask, and that the names of the new fields are free."""
        if len(chosen) != 1:
            raise ValueError(
                f"{_WHO}: {len(chosen)} images in one sample. Give one image, or one batch, per call; name it with image=; or pass "
                f"mask=False, which corrupts all of them in the same way."
            )
        if isinstance(sample, dict):
            taken = sorted({"clean", "mask"} & sample.keys())
            if taken:
                raise ValueError(
                    f"{_WHO}: the sample already has {' and '.join(taken)}, but the result needs these names. Rename them, or pass "
                    f"mask=False."
                )
            if len(chosen[0]) != 1:
                raise ValueError(f"{_WHO}: the image is nested deeper in the dict. Give a flat dict, or pass mask=False.")

    def _folded(self, image: Tensor) -> tuple[tuple[int, ...], int]:
        """Return the shape (B, C, *S) that a plan is drawn for, and the number of frames that share each row of the plan."""
        dims, size = self.corrupt.program.dims, tuple(image.shape)
        video, axes = isinstance(image, tv_tensors.Video), dims + 1
        if video and dims == 3:
            size = (*size[:-4], size[-3], size[-4], *size[-2:])
        if len(size) < axes or (video and dims == 1):
            raise ValueError(
                f"{_WHO}: {type(image).__name__} {size} was given, but this corruption works on {dims} spatial axes. Give images "
                f"(..., C, *S), or build the corruption for these, with Boxes(dims={2 if video else max(len(size) - 1, 1)})."
            )
        frames = size[-axes - 1] if video and dims == 2 else 1
        lead = size[: -axes - 1] if video and dims == 2 else size[:-axes]
        return (math.prod(lead) if frames else 0, *size[-axes:]), frames

    def _apply(self, batch: Tensor, plan: Plan, frames: int) -> Corrupted:
        """Apply a plan to images, or to the frames of clips, each frame by the row of its clip."""
        if frames == 1:
            return self.corrupt.apply(batch, plan, donors=self.donors)
        if self.donors is not None or not self.corrupt.program.reads_donors:
            rows = torch.arange(len(plan), device=batch.device).repeat_interleave(frames)
            return self.corrupt.apply(batch, plan.at(rows), donors=self.donors)
        parts = [self.corrupt.apply(batch[at::frames], plan) for at in range(frames)]  # donors: the same frame of other clips
        images, masks = (torch.stack(part, 1).flatten(0, 1) for part in zip(*parts, strict=True))
        return Corrupted(images, masks)

    # the names of these three before torchvision 0.21
    _check_inputs, _get_params, _transform = check_inputs, make_params, transform


def _paths(tree: Any, path: Path = ()) -> list[Path]:
    """The names on the path to every leaf, in torch's order; leaves inside a custom pytree node have the path of the node."""
    if type(tree) in (dict, OrderedDict, defaultdict):
        parts = tree.items()
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        parts = zip(tree._fields, tree, strict=True)
    elif type(tree) in (list, tuple):
        parts = enumerate(tree)
    else:
        return [path] * len(pytree.tree_flatten(tree)[0])
    return [found for name, part in parts for found in _paths(part, (*path, name))]


def _is_called(path: Path, name: str | int) -> bool:
    """True if a field of this name is on the path; a position counts only at the top level."""
    return name in (path[:1] if isinstance(name, int) else path)


def _fields(paths: list[Path]) -> str:
    return ", ".join(repr(path[-1]) for path in paths if path) or "none"
