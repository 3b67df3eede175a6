"""Corruption inside kornia's containers. This module needs kornia, and is imported on first use."""

# ruff: noqa: A002  # kornia calls it input

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from kornia.augmentation import IntensityAugmentationBase2D
from torch import Tensor

from gmml_aug.adapters.loops import check_corruption, refuse_tracing
from gmml_aug.chance import draw_keys, stream, to_uniform
from gmml_aug.checks import check_integer, check_number
from gmml_aug.corruption import Corruption
from gmml_aug.plan import Plan

_GATE = -1  # a corruption numbers its streams from 0


@final
class Corrupt(IntensityAugmentationBase2D):
    """A corruption as a kornia augmentation.

    Its parameters are one int64 key per image, ``{"keys"}``, in addition to kornia's own ``batch_prob``. The keys determine every
    random decision, including which images ``p`` selects. So ``aug(images, params=aug._params)`` repeats a call bit for bit, and so
    do
    parameters that were saved, or ``corrupt(images, params={"keys": gmml_aug.keys(seed, epoch, index)})``.

    **The mask** is computed again from the keys when you ask for it: ``corrupt.mask()`` for the last call,
    ``corrupt.mask(params)`` for an earlier one. If flips or crops follow, pass ``marks=True`` and zeros under the data key
    ``"mask"``: they come back as ones where the images were touched, and move along with them. Everything else passes through
    unchanged.

    **Clips.** In ``VideoSequential`` all frames of a clip have one key (``same_on_frame=True``, kornia's default) or one each. In
    both cases an `Alien` is the same frame of another clip; if the frames share a key, it is the same clip for all of them.

    Args:
        corrupt: the corruption to apply.
        p: probability that an image is corrupted.
        same_on_batch: True to use one key for all images (aliens still come from different donors). A container may set it too.
        keepdim: True to return a single image (C, H, W) without the batch axis.
        marks: True to write ones into masks that are passed as data.
        generator: draws the keys, on its own device; by default torch's global generator.
        donors: (N, C, H, W) images that aliens are taken from instead of this batch.
        rank: the rank of this process, as in `Corruption.__call__`.

    Shapes:
        (B, C, H, W) or (C, H, W), float (kornia does not take uint8) -> the same, as a batch unless ``keepdim``.

    Raises:
        TypeError: ``corrupt`` is not a corruption; unknown keywords, at the call as well; uint8 images; ``torch.jit.trace``, or
            ``torch.onnx.export`` if it traces.
        ValueError: ``p`` is outside [0, 1], or the corruption does not have two spatial axes.
    """

    def __init__(
        self,
        corrupt: Corruption,
        *,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        marks: bool = False,
        generator: torch.Generator | None = None,
        donors: Tensor | None = None,
        rank: int | None = None,
    ) -> None:
        who = "kornia_adapter.Corrupt"
        super().__init__(p=check_number(who, "p", p, 0.0, 1.0), same_on_batch=same_on_batch, keepdim=keepdim)
        self.corrupt = check_corruption(who, corrupt)
        if corrupt.program.dims != 2:
            raise ValueError(
                f"{who}: the corruption works on {corrupt.program.dims} spatial axes. Give one for images, with Boxes(dims=2)."
            )
        self.marks, self.generator, self.donors = marks, generator, donors
        self.rank = None if rank is None else check_integer(who, "rank", rank, 0)

    def generate_parameters(self, batch_shape: Sequence[int]) -> dict[str, Tensor]:
        """Draw ``{"keys"}``, (B,) int64, on the device of the generator, or else on the one set by ``.to(device)``."""
        where = self.device if self.generator is None else self.generator.device
        keys = draw_keys(1 if self.same_on_batch else batch_shape[0], where, self.generator, self.rank)
        return {"keys": keys.repeat(batch_shape[0]) if self.same_on_batch else keys}

    def forward_parameters(self, batch_shape: Sequence[int]) -> dict[str, Tensor]:
        """`generate_parameters` and kornia's own parameters: which images are corrupted, and the shape they are for."""
        return self._completed(self.generate_parameters(batch_shape), batch_shape)

    def forward(  # type: ignore[override]  # kornia's ends in **kwargs and drops what is misspelt
        self, input: Tensor, params: dict[str, Tensor] | None = None, data_keys: object = None
    ) -> Tensor:
        """Corrupt a batch, with ``params`` if they are given; called by kornia's container."""
        refuse_tracing("kornia_adapter.Corrupt")
        if params is not None:
            shape = input.shape if input.ndim == 4 else (1,) * (4 - input.ndim) + tuple(input.shape)
            params = self._completed(params, shape)
        done: Tensor = super().forward(input, params)
        return done

    def apply_transform(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return the corrupted images; kornia restores those that ``p`` did not select."""
        frames, bank = _frames(params, input.shape[0]), None if self.donors is None else self.donors.shape[0]
        parts = [
            self.corrupt.apply(input[part], plan, donors=self.donors).images
            for part, plan in self._plans(params, input.shape, input.device, frames, bank)
        ]
        return _joined(parts)

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Return masks (B, C, H, W) unchanged, or with ones where the images were touched."""
        return input.masked_fill(self.mask(params).to(input.device), 1.0) if self.marks else input

    def mask(self, params: dict[str, Tensor] | None = None, *, device: torch.device | str | None = None) -> Tensor:
        """Compute again from its keys which pixels a call touched, by default the last call: (B, 1, H, W) bool.

        Args:
            params: the parameters of a call; by default those of the last one.
            device: the device of the mask; by default that of the keys.

        Raises:
            ValueError: nothing has been corrupted yet, or the parameters do not state the shape of the images.
        """
        params = self._params if params is None else params
        if "keys" not in params or "forward_input_shape" not in params:
            raise ValueError(
                "kornia_adapter.Corrupt: there are no parameters to compute a mask from. Call it first, or pass the "
                "parameters of a call."
            )
        where = params["keys"].device if device is None else torch.device(device)
        # of the batch that was drawn for: there are more keys where a container repeats them for the frames of a clip, and one
        # where it hands on masks in a list, each with its own row of the parameters
        batch, *size = params["forward_input_shape"].tolist()
        count, drawn_for = len(params["keys"]), params.get("batch_size", torch.tensor(batch))
        of = int(drawn_for.reshape(-1)[0])
        bank = self.donors.shape[0] if self.donors is not None else of if of > count else None
        plans = self._plans(params, (count, *size), where, _frames(params, count), bank)
        # with p=1 kornia does not look at batch_prob, neither may the mask
        gate = torch.ones_like(params["batch_prob"]) if self.p == 1.0 else params["batch_prob"]
        touched = _joined([self.corrupt.kinds(plan) > 0 for _, plan in plans])
        return touched & (gate > 0.5).to(where)[:, None, None, None]

    def __repr__(self) -> str:
        return f"Corrupt({self.corrupt!r}, p={self.p}, same_on_batch={self.same_on_batch}, marks={self.marks})"

    def _plans(
        self, params: dict[str, Tensor], shape: Sequence[int], device: torch.device, frames: int, bank: int | None
    ) -> list[tuple[slice, Plan]]:
        """One plan per time step for clips, so that donors are the same frame of other clips; a single plan for images."""
        keys = params["keys"].to(device, non_blocking=True)
        if bank is not None or not self.corrupt.program.reads_donors or shape[0] % frames:
            frames = 1
        size = (shape[0] // frames, *shape[1:])
        parts = [slice(at, None, frames) for at in range(frames)]
        return [(part, self.corrupt.sample(size, keys=keys[part], bank=bank)) for part in parts]

    def _completed(self, params: dict[str, Tensor], shape: Sequence[int]) -> dict[str, Tensor]:
        if "keys" not in params:
            raise ValueError(
                f"kornia_adapter.Corrupt: the parameters {sorted(params)} hold no keys. Give the parameters of a call of "
                "this class."
            )
        word = stream(params["keys"], _GATE)
        return {
            "batch_prob": (to_uniform(word) < self.p).to(self.dtype),
            "batch_size": torch.full((len(word),), shape[0]),  # a row an image: containers repeat and slice all parameters
            "forward_input_shape": torch.tensor(tuple(shape), dtype=torch.long),
            **params,
        }


def _frames(params: dict[str, Tensor], count: int) -> int:
    """The number of frames in a clip, 1 for images; kornia flattens clips (B, T, C, H, W) and records this number."""
    return max(count // max(int(params["video_batch_size"]), 1), 1) if "video_batch_size" in params else 1


def _joined(parts: list[Tensor]) -> Tensor:
    """Merge time steps, (B, C, H, W) each, back into the order of the frames, (B T, C, H, W)."""
    return parts[0] if len(parts) == 1 else torch.stack(parts, 1).flatten(0, 1)
