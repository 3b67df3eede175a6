"""Corruptions for loops that expect a module or a callable: `Module` for `nn.Sequential`, `TimmCorrupt` for timm.

Neither keeps the last mask on ``self``, where it would hold memory, break a compiled graph, and, with two views, belong to the
wrong one.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Unpack, final

import torch
from torch import Tensor, nn

from gmml_aug.backends.call import Corrupted
from gmml_aug.call_checks import CallOptions
from gmml_aug.corruption import Corruption


@final
class Module(nn.Module):
    """A corruption as a module: no parameters, no buffers, an empty ``state_dict``, the same in training and evaluation.

    ``nn.Sequential(ga.Module(corrupt), model)`` corrupts the input of the model. A chain of modules passes on one tensor, so the
    module returns the images; with ``mask=True`` it returns the pair (images, mask), for a following module that accepts it. To
    get the mask of a chain, pass keys: ``corrupt(clean, keys=keys).mask`` is the mask of ``module(clean, keys=keys)``.

    Args:
        corrupt: the corruption to apply.
        mask: True to return `Corrupted`, images and mask, instead of the images alone.

    Shapes:
        (B, C, *S) float or uint8 -> (B, C, *S) of the same dtype; with ``mask=True`` also (B, 1, *S) bool.

    Raises:
        TypeError: ``corrupt`` is not a corruption; at the call, anything that the corruption refuses.
    """

    def __init__(self, corrupt: Corruption, *, mask: bool = False) -> None:
        super().__init__()
        self.corrupt = check_corruption("Module", corrupt)
        self.mask = mask

    def forward(self, images: Tensor, **options: Unpack[CallOptions]) -> Tensor | Corrupted:
        """Corrupt a batch; the options are those of `Corruption.__call__`."""
        refuse_tracing("Module")
        done = self.corrupt(images, **options)
        return done if self.mask else done.images

    def extra_repr(self) -> str:
        """The code that builds the corruption."""
        return repr(self.corrupt) + (", mask=True" if self.mask else "")


@final
class TimmCorrupt:
    """A drop-in for timm's ``Mixup``: ``images, targets = corrupt(images, targets)`` in the training loop, on the device.

    The loop passes ``targets`` to the loss and to nothing else, so that is where the mask goes: the returned targets are the dict
    ``{"clean", "mask", "targets"}``, with the original images, the mask (B, 1, *S) bool, and the targets of the data set. With
    ``mask=False`` the targets come back unchanged, for training on labels. timm switches its mixup off by setting
    ``mixup_enabled = False``; it does the same here: images and targets are then returned unchanged, with an empty mask, and a
    warning says once that a loss over that mask trains nothing.

    ``TimmCorrupt.loss(masked_l1)`` is the loss as a module, which timm's ``train.py`` moves to its device.

    Args:
        corrupt: the corruption to apply.
        mask: True to return clean images and mask along with the targets.

    Raises:
        TypeError: ``corrupt`` is not a corruption; at the call, anything that the corruption refuses.
    """

    def __init__(self, corrupt: Corruption, *, mask: bool = True) -> None:
        self.corrupt = check_corruption("TimmCorrupt", corrupt)
        self.mask = mask
        self.mixup_enabled = True
        self._warned = False

    @staticmethod
    def loss(function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> nn.Module:
        """Wrap a function or module of (restored, clean, mask) as a module of (output, targets), which timm's loop can call.

        Raises:
            TypeError: ``function`` cannot be called; at the call, the targets are not those of `TimmCorrupt`.
        """
        return _Restoration(function)

    def __call__(self, images: Tensor, targets: Any, **options: Unpack[CallOptions]) -> tuple[Tensor, Any]:
        """Corrupt a batch (B, C, *S); the options are those of `Corruption.__call__`, and the input is never written to."""
        if self.mixup_enabled:
            done = self.corrupt(images, **options)
        else:
            if self.mask and not self._warned:
                self._warned = True
                warnings.warn(
                    "TimmCorrupt: mixup_enabled is False, so nothing is corrupted and the masks are empty: a loss over them is 0 "
                    "and trains nothing. Leave out --mixup-off-epoch if images are restored, or pass mask=False to train on "
                    "labels.",
                    stacklevel=2,
                )
            done = Corrupted(images, torch.zeros_like(images[:, :1], dtype=torch.bool))
        return done.images, {"clean": images, "mask": done.mask, "targets": targets} if self.mask else targets

    def __repr__(self) -> str:
        return f"TimmCorrupt({self.corrupt!r}{'' if self.mask else ', mask=False'})"


class _Restoration(nn.Module):
    """What `TimmCorrupt.loss` returns."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        if not callable(function):
            raise TypeError(f"TimmCorrupt.loss: {function!r} cannot be called. Give a function of (restored, clean, mask).")
        self.function = function

    def forward(self, output: Tensor, targets: dict[str, Any]) -> Tensor:
        if not isinstance(targets, dict) or not {"clean", "mask"} <= targets.keys():
            raise TypeError(
                f"TimmCorrupt.loss: the targets are {type(targets).__name__}, not what TimmCorrupt returns. Give it in the place "
                "of mixup_fn, with mask=True and without timm's prefetcher (--no-prefetcher)."
            )
        return self.function(output, targets["clean"], targets["mask"])


def check_corruption(who: str, corrupt: object) -> Corruption:
    """Return the corruption, or raise an error that names the caller."""
    if not isinstance(corrupt, Corruption):
        raise TypeError(f"{who}: corrupt={corrupt!r} is not a corruption. Give one, for example gmml_aug.presets.gmml().")
    return corrupt


def refuse_tracing(who: str) -> None:
    """A trace stores the random numbers of one call and repeats them forever, and exported models are for inference."""
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]  # untyped and not exported, but documented
        raise TypeError(
            f"{who}: torch.jit.trace (which torch.onnx.export(dynamo=False) uses) would store the random numbers of one call. "
            f"Leave the corruption out of the model that is traced or exported: only training needs it. torch.compile may include "
            f"it."
        )
