"""The contract of an objective, which turns views into a loss and is updated after a step, and the teacher of some objectives.

V views, B images, C channels, (H, W) the size of a view.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar, final, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from gmml_aug import Corruption
from gmml_aug.checks import check_keys
from gmml_models.losses import l1, l2, masked_l1, masked_l2
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.encoders import evaluating
from gmml_models.models.geometry import check_images
from gmml_models.models.slow_state import NARROW, SlowState, widen

Loss = Literal["l1", "l2"]
Head = TypeVar("Head", bound=nn.Module)


class Reconstruction(NamedTuple):
    """The tensors for a picture of a reconstruction.

    Attributes:
        corrupted: (B, C, H, W) the input of the autoencoder.
        mask: (B, 1, H, W) bool, True where a pixel was manipulated.
        restored: (B, C, H, W) its output, float32, in the value range of the images: a normalised target is converted back with the
            mean and standard deviation of the clean patches, which are known here.
    """

    corrupted: Tensor
    mask: Tensor
    restored: Tensor


class Views(NamedTuple):
    """The views of one size, concatenated, so that they pass through a network together.

    Attributes:
        clean: (V*B, C, H, W).
        corrupted: (V*B, C, H, W).
        mask: (V*B, 1, H, W) bool.
    """

    clean: Tensor
    corrupted: Tensor
    mask: Tensor


class Objective(nn.Module, ABC):
    """A pretraining objective: it corrupts views of images, restores them, and returns the loss.

    In each training step, call the objective once, or several times to accumulate gradients. Then call ``after_step`` once the
    optimiser has stepped, or ``discard`` if the step is skipped. Every parameter that requires a gradient gets one in every call,
    so that DistributedDataParallel need not search for unused ones; wrap the objective itself. In evaluation mode, a call does
    not change any state.

    Args:
        autoencoder: the student, which is trained.
        corrupt: the corruption of the views, or None.
        loss: the comparison of the reconstruction with the autoencoder's ``target``: ``"l1"``, absolute difference, or ``"l2"``,
            squared difference.

    Attributes:
        autoencoder: the autoencoder that was passed.
        corrupt: the corruption that was passed.
        loss: the loss that was passed.
    """

    def __init__(self, autoencoder: GMMLAutoencoder, corrupt: Corruption | None, loss: Loss = "l1") -> None:
        super().__init__()
        if loss not in get_args(Loss):
            raise ValueError(f"{self._name}: loss={loss!r} is unknown. Allowed: {' and '.join(map(repr, get_args(Loss)))}.")
        if corrupt is not None and not isinstance(corrupt, Corruption):
            raise TypeError(
                f"{self._name}: corrupt={corrupt!r} is not a corruption. Give one from gmml_aug, for example presets.gmml(), or "
                "leave it out for the objective's default; the objective without any corruption is Autoencode."
            )
        self.autoencoder = autoencoder
        self.corrupt = corrupt
        self.loss: Loss = loss

    @abstractmethod
    def forward(self, views: Sequence[Tensor], *, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss and the parts that it is made of.

        Args:
            views: tensors (B, C, H, W), normalised, of equal float dtype; those whose size differs from the first are *local*.
            keys: (B,) int64, one per image: view v is corrupted by ``keys + v``.

        Returns:
            The loss, () in float32 or wider, and each part by name, (), detached. Means are taken per image first, so the mean of
            the losses of two halves of a batch is the loss of the whole batch, except for SiT's contrast and alien content, which
            depend on the batch.

        Raises:
            TypeError: views or keys have the wrong type.
            ValueError: views have other channels, a size that is not a multiple of the patch size, or different numbers of
                images; or there are too few views or images. Errors are raised before anything is computed.
        """

    def after_step(self, progress: float) -> None:
        """Update the teacher and the centres after a step of the optimiser; do not call it for a skipped step.

        Args:
            progress: the completed share of the run, 0 to 1.

        Raises:
            ValueError: another ``progress``.
        """
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"{self._name}: progress={progress} is outside [0, 1]. Give steps done / steps of the run.")

    def discard(self) -> None:
        """Discard the state collected in the calls since the last step; call this if a step is skipped."""

    def compile(self, *words: Any, **options: Any) -> None:
        """Compile the networks in place with `torch.compile`; the corruption keeps its own kernels, which compile faster.

        Arguments are those of `torch.compile`. ``torch.compile(objective)`` compiles everything into one graph.
        """
        for module in self.modules():
            if isinstance(module, GMMLAutoencoder):
                module.compile(*words, **options)

    def encoder(self) -> VisionTransformer:
        """The encoder that is exported: a reference, not a copy. A teacher's parameters require no gradient."""
        return self.exported().encoder

    def exported(self) -> GMMLAutoencoder:
        """The autoencoder to save, which is the teacher's if there is a teacher."""
        return self.autoencoder

    @property
    def reconstructs(self) -> bool:
        """True if a decoder is trained."""
        return True

    @torch.no_grad()
    def reconstruct(self, images: Tensor, *, keys: Tensor) -> Reconstruction:
        """Corrupt images as in training, and restore them with the exported autoencoder, in evaluation mode.

        Args:
            images: (B, C, H, W), normalised, float.
            keys: (B,) int64.

        Raises:
            TypeError: as in a call.
            ValueError: as in a call; also if no decoder is trained.
        """
        if not self.reconstructs:
            raise ValueError(f"{self._name}: no decoder is trained, so there is nothing to show. Ask objective.reconstructs first.")
        self._sizes([images], keys)
        _, corrupted, mask = self._batch([images], keys, [0])
        model = self.exported()
        dtype = next(model.parameters()).dtype  # of a teacher float32, whatever that of the images
        with evaluating(model):
            return Reconstruction(corrupted, mask, model.restore(corrupted.to(dtype), clean=images.to(dtype)))

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _sizes(self, views: Sequence[Tensor], keys: Tensor) -> list[list[int]]:
        """Group the numbers of the views by size, with the first view's size first.

        Raises an error for views that no objective accepts.
        """
        if isinstance(views, Tensor) or not len(views) or not all(isinstance(view, Tensor) for view in views):
            came = f"a tensor {tuple(views.shape)}" if isinstance(views, Tensor) else f"{views!r:.80}"
            raise TypeError(
                f"{self._name}: views must be a list of tensors (B, C, H, W), not {came}. Give [images], or several views."
            )
        first = views[0]
        sizes: list[list[int]] = []
        for number, view in enumerate(views):
            check_images("GMMLAutoencoder", self.autoencoder.encoder, view)
            if view.shape[0] != first.shape[0] or view.dtype != first.dtype or view.device != first.device:
                raise ValueError(
                    f"{self._name}: view {number} holds {view.shape[0]} images, {view.dtype} on {view.device}, but view 0 holds "
                    f"{first.shape[0]}, {first.dtype} on {first.device}. Give views of the same images, with equal dtype and "
                    f"device."
                )
            for numbers in sizes:
                if views[numbers[0]].shape == view.shape:
                    numbers.append(number)
                    break
            else:
                sizes.append([number])
        if not first.shape[0]:
            raise ValueError(f"{self._name}: the views hold no image. Give at least one image.")
        check_keys(keys, first.shape[0], first.device)
        return sizes

    def _batch(self, views: Sequence[Tensor], keys: Tensor, numbers: Sequence[int]) -> Views:
        """Stack the views of one size, clean and corrupted; each view is corrupted separately, so that aliens are other images."""
        clean = _join([views[number] for number in numbers])
        if self.corrupt is None:
            return Views(clean, clean, torch.zeros_like(clean[:, :1], dtype=torch.bool))
        done = [self.corrupt(views[number], keys=keys + number) for number in numbers]
        return Views(clean, _join([one.images for one in done]), _join([one.mask for one in done]))

    def _error(self, restored: Tensor, clean: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B,) reconstruction error of each image, by the objective's loss and the autoencoder's target.

        Args:
            restored: (B, C, H, W), the decoder's output.
            clean: (B, C, H, W).
            mask: (B, 1, H, W) bool, the pixels to compare; by default the whole image.
        """
        target, patch = self.autoencoder.target, self.autoencoder.patch_size
        if mask is None:
            return (l1 if self.loss == "l1" else l2)(restored, clean, reduction="none", target=target, patch=patch)
        return (masked_l1 if self.loss == "l1" else masked_l2)(restored, clean, mask, reduction="none", target=target, patch=patch)

    def _check_depth(self) -> None:
        """Refuse an autoencoder whose loss would not train the last blocks of the encoder."""
        depth, blocks = len(self.autoencoder.encoder.blocks), self.autoencoder.blocks
        if blocks[-1] < depth:
            raise ValueError(
                f"{self._name}: blocks={blocks} end before the last block, {depth}, so the blocks after them would not be trained. "
                f"End them with {depth}, or give a shallower encoder."
            )


@final
class Teacher(SlowState, Generic[Head]):
    """A copy of a student's autoencoder and head that gets no gradients and follows the student's weights.

    Its weights are float32 or wider: ``objective.bfloat16()`` does not change them, and passes over half-precision images go
    through `computing_as`. The autoencoder is always in evaluation mode: no dropout, no drop path.
    The head follows the mode of the objective, so that batch norms use the batch statistics in training.

    Args:
        autoencoder: the student's.
        head: the student's.
        momentum: the share of the teacher that is kept at each step, at the start of a run.

    Raises:
        ValueError: ``momentum`` is outside [0, 1].

    Source:
        MC-SSL 3, "phi = lambda phi + (1 - lambda) theta", and 4.1, lambda from 0.996 to 1 along a cosine; SiT's release does the
        same.
    """

    def __init__(self, autoencoder: GMMLAutoencoder, head: Head, momentum: float = 0.996) -> None:
        super().__init__()
        if not 0.0 <= momentum <= 1.0:
            raise ValueError(f"Teacher: momentum={momentum} is outside [0, 1]. Give, for example, momentum=0.996.")
        self.momentum = momentum
        self.autoencoder = copy.deepcopy(autoencoder)
        self.autoencoder.set_grad_checkpointing(False)
        self.head: Head = copy.deepcopy(head)
        widen(self)
        self.requires_grad_(False)
        self.train(autoencoder.training)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the autoencoder stays in evaluation mode."""
        super().train(mode)
        self.autoencoder.eval()
        return self

    @torch.no_grad()
    def follow(self, autoencoder: GMMLAutoencoder, head: Head, momentum: float) -> None:
        """Move the teacher towards the student, all parameters in one call.

        Buffers of the autoencoder are copied; the head keeps its own, which are statistics of its inputs.

        Args:
            autoencoder: the student's.
            head: the student's.
            momentum: the share of the teacher that is kept.
        """
        mine = [*self.autoencoder.parameters(), *self.head.parameters()]
        theirs = [*autoencoder.parameters(), *head.parameters()]
        wide = [other if other.dtype == own.dtype else other.to(own.dtype) for own, other in zip(mine, theirs, strict=True)]
        get_ema_multi_avg_fn(momentum)(mine, wide, None)
        for own, other in zip(self.autoencoder.buffers(), autoencoder.buffers(), strict=True):
            own.copy_(other)


def computing_as(images: Tensor) -> AbstractContextManager[Any]:
    """A context in which float32 weights process half-precision images, with matrix products in the images' dtype."""
    return torch.autocast(images.device.type, images.dtype) if images.dtype in NARROW else nullcontext()


def _join(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
