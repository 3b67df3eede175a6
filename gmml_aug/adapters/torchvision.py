"""Corruption inside ``torchvision.transforms.v2.Compose``. Needs torchvision; imported only when asked for."""

from __future__ import annotations

from typing import Any, final

import PIL.Image
import torch
from torch import Tensor
from torch.utils.data import get_worker_info
from torchvision import tv_tensors
from torchvision.transforms import v2

from gmml_aug.adapters.loops import check_corruption
from gmml_aug.corruption import Corruption


class _MaskSlot:
    """Travels through torchvision's loop over the inputs behind the image, and comes out as the mask."""


def _is_plain(one: object) -> bool:
    return isinstance(one, Tensor) and not isinstance(one, tv_tensors.TVTensor)


@final
class Corrupt(v2.Transform):  # type: ignore[misc]  # torchvision is untyped
    """A corruption as a ``v2.Transform``, for batches and single images.

    The image is the ``tv_tensors.Image`` of the sample or, without one, its first plain tensor, as everywhere in torchvision.
    Masks, bounding boxes, labels, videos and all else pass through untouched. PIL images are refused: put ``v2.ToImage()`` before.

    **Where the mask is.** A dict comes back with two more keys, ``"mask"`` and ``"clean"``. Anything else comes back as a tuple
    with the mask last: ``image, mask = t(image)``, ``image, label, mask = t(image, label)``. The mask is a ``tv_tensors.Mask`` and
    clean a ``tv_tensors.Image``, so flips and crops that come later treat them as they treat the image. (In a dict a plain tensor
    therefore comes back as ``tv_tensors.Image``.) torchvision refuses operations between its classes, ``clean * mask``: let the
    pipeline end with ``v2.ToPureTensor()``. With ``mask=False`` a sample keeps its structure.

    **Chance** comes from the generator given, else from torch's own, which a DataLoader seeds in every worker.
    ``make_params([image])`` is ``{"plan": plan}``, drawn once per call; ``transform(image, {"plan": plan})`` repeats it, also
    from a plan that was saved.

    Args:
        corrupt: what happens to the images.
        mask: give mask and clean image back too.
        generator: where the keys are drawn from, on the device of the images; not in the worker of a DataLoader.
        donors: (N, C, *S) images that aliens are taken from. A single image has no neighbours in a batch: `Alien` needs them here.

    Shapes:
        (B, C, *S) or (C, *S), float or uint8 -> the same shape, dtype and class; mask (B, 1, *S) or (1, *S) bool.

    Raises:
        TypeError: ``corrupt`` is no corruption; at the call, a PIL image.
        ValueError: at the call: no image or several, names that are taken, a generator in a worker, an `Alien` without donors.
    """

    _transformed_types = (tv_tensors.Image, _is_plain, _MaskSlot)

    def __init__(
        self,
        corrupt: Corruption,
        *,
        mask: bool = True,
        generator: torch.Generator | None = None,
        donors: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.corrupt = check_corruption("torchvision_adapter.Corrupt", corrupt)
        self.mask, self.generator, self.donors = mask, generator, donors

    def check_inputs(self, flat_inputs: list[Any]) -> None:
        """Refuse PIL images, which would pass through unchanged."""
        if any(isinstance(one, PIL.Image.Image) for one in flat_inputs):
            raise TypeError("torchvision_adapter.Corrupt: a PIL image came. Allowed are tensors: put v2.ToImage() before it.")

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the plan for the one image among the inputs: ``{"plan": plan}``, see `gmml_aug.Plan`."""
        images = [one for one in flat_inputs if isinstance(one, Tensor)]
        if len(images) != 1:
            raise ValueError(
                f"torchvision_adapter.Corrupt: {len(images)} images in one sample. Give one image, or one batch, in a call."
            )
        if self.generator is not None and get_worker_info() is not None:
            raise ValueError(
                "torchvision_adapter.Corrupt: a generator came into the worker of a DataLoader. Every worker has a copy of it and "
                "would draw the same; leave it out, for torch's own is seeded per worker."
            )
        images = [self._batch(images[0])]
        bank = None if self.donors is None else self.donors.shape[0]
        device = images[0].device
        return {"plan": self.corrupt.sample(images[0].shape, generator=self.generator, bank=bank, device=device)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """The corrupted image by the plan in ``params``; no chance in here."""
        if isinstance(inpt, _MaskSlot):
            return params["mask"]
        batch = self._batch(inpt)
        images, mask = self.corrupt.apply(batch, params["plan"], donors=self.donors)
        if batch.ndim != inpt.ndim:
            images, mask = images[0], mask[0]
        params["mask"] = tv_tensors.Mask(mask)  # of this call alone: the slot, which comes later, picks it up
        return tv_tensors.wrap(images, like=inpt) if isinstance(inpt, tv_tensors.Image) else images

    def forward(self, *inputs: Any) -> Any:
        """Corrupt the image of a sample; see the class for what comes back."""
        sample = inputs[0] if len(inputs) == 1 else inputs
        if not self.mask:
            return super().forward(sample)
        if not isinstance(sample, dict):
            done, mask = super().forward(sample, _MaskSlot())
            return (*done, mask) if isinstance(done, tuple | list) else (done, mask)
        taken = sorted({"clean", "mask"} & sample.keys())
        if taken:
            raise ValueError(
                f"torchvision_adapter.Corrupt: the sample has {' and '.join(taken)} already, names for what comes back. Rename "
                "them, or say mask=False."
            )
        done, mask = super().forward(sample, _MaskSlot())
        changed = [name for name, value in sample.items() if isinstance(value, Tensor) and done[name] is not value]
        if not changed:
            raise ValueError("torchvision_adapter.Corrupt: the image lies deeper in the dict. Give a flat one, or say mask=False.")
        # plain tensors are left alone by later transforms once there is an Image
        done[changed[0]] = tv_tensors.Image(done[changed[0]])
        return {**done, "clean": tv_tensors.Image(sample[changed[0]]), "mask": mask}

    def extra_repr(self) -> str:
        """The code that builds the corruption."""
        return repr(self.corrupt)

    def _batch(self, image: Tensor) -> Tensor:
        plain = image.as_subclass(Tensor)
        return plain[None] if plain.ndim == self.corrupt.program.dims + 1 else plain

    # the names of these three before torchvision 0.21
    _check_inputs, _get_params, _transform = check_inputs, make_params, transform
