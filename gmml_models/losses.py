"""What reconstructions, concepts and embeddings are compared by.

All of them compute in float32 or wider, under autocast too, and return that. Means are taken per image first: the mean of the
losses of two halves of a batch is the loss of the batch (but for `contrastive_loss`, whose negatives are the rest of the batch).

B images, C channels, S their spatial axes, K concepts.
"""

from __future__ import annotations

import math
from typing import Literal, final

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

Reduction = Literal["mean", "none", "sum"]


def masked_l1(reconstruction: Tensor, clean: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Absolute difference where the image was manipulated.

    Per image the mean over manipulated pixels and channels, then the mean over all images. An image whose mask is empty contributes
    0, and counts as an image: so half batches have the mean of the whole. What lies outside the mask, NaN even, has no influence.

    Args:
        reconstruction: what the model says.
        clean: what it should say.
        mask: True where the pixel was manipulated.
        reduction: over the images: "mean", "sum", or "none" for one number an image.

    Shapes:
        (B, C, *S) float, (B, C, *S) float, (B, 1, *S) bool -> () or (B,).

    Raises:
        TypeError: images that are not float, a mask that is not bool.
        ValueError: shapes that do not fit, an empty batch, an unknown ``reduction``.

    Source:
        GMML 2.3, equation 1, which sums; the release averages over the manipulated elements of the whole batch. Averaging within
        each image first is ours.
    """
    return _reduce("masked_l1", _masked("masked_l1", reconstruction, clean, mask, squared=False), reduction)


def masked_l2(reconstruction: Tensor, clean: Tensor, mask: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared difference where the image was manipulated; otherwise as `masked_l1`.

    Source:
        The code that the authors of MC-SSL published; the paper has `l1`.
    """
    return _reduce("masked_l2", _masked("masked_l2", reconstruction, clean, mask, squared=True), reduction)


def l1(reconstruction: Tensor, clean: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Absolute difference over the whole image: per image the mean, then the mean over the images.

    Shapes:
        (B, C, *S) float, (B, C, *S) float -> () or (B,).

    Raises:
        TypeError: images that are not float.
        ValueError: shapes that differ, an empty batch, an unknown ``reduction``.

    Source:
        MC-SSL 3.2.1, equation 1, which sums; the mean is ours.
    """
    one, other = _same("l1", reconstruction=reconstruction, clean=clean)
    return _reduce("l1", (one - other).abs().flatten(1).mean(1), reduction)


def l2(reconstruction: Tensor, clean: Tensor, *, reduction: Reduction = "mean") -> Tensor:
    """Squared difference over the whole image; otherwise as `l1`.

    Source:
        Ours, for comparison.
    """
    one, other = _same("l2", reconstruction=reconstruction, clean=clean)
    return _reduce("l2", (one - other).square().flatten(1).mean(1), reduction)


def concept_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04
) -> Tensor:
    """Cross-entropy of the student's concepts against the teacher's, centred and sharpened; the mean over tokens and images.

    Args:
        student: logits for the corrupted images; these learn.
        teacher: logits for the clean ones; no gradient reaches them.
        center: what is taken from the teacher's logits.
        student_temperature: what the student's logits are divided by.
        teacher_temperature: what the teacher's are divided by; lower is sharper.

    Shapes:
        (..., K) float, (..., K) float, (K,) float -> ().

    Raises:
        TypeError: logits that are not float.
        ValueError: shapes that differ, nothing to average, a temperature not above 0.

    Source:
        MC-SSL 3.2.2. Equation 4 prints neither the minus sign nor a plain sum over K (it divides by K, which would shrink the loss
        a thousandfold against L1), and equation 3 omits the centre that the text asks for: as DINO here, and as the release.
    """
    _check_temperature("concept_loss", "student_temperature", student_temperature)
    _check_temperature("concept_loss", "teacher_temperature", teacher_temperature)
    learning, target = _same("concept_loss", student=student, teacher=teacher)
    _check_classes("concept_loss", target, center)
    wanted = ((target.detach() - center.detach().to(target.dtype)) / teacher_temperature).softmax(-1)
    return -(wanted * (learning / student_temperature).log_softmax(-1)).sum(-1).mean()


@final
class ConceptLoss(nn.Module):
    """`concept_loss` with its centre: a moving average of the teacher's logits, which keeps one concept from taking everything.

    Comparing leaves the centre as it is; call ``update`` after each step.

    Args:
        classes: K, how many concepts.
        student_temperature: what the student's logits are divided by.
        teacher_temperature: what the teacher's are divided by; lower is sharper. Both may be set anew while training.
        momentum: how much of the centre stays at each ``update``.

    Raises:
        ValueError: ``classes`` below 1, a temperature not above 0, ``momentum`` outside [0, 1).

    Source:
        MC-SSL 3.2.2 and its temperatures. The paper does not give the momentum; 0.9 is the release's.
    """

    center: Tensor

    def __init__(
        self, classes: int, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04, momentum: float = 0.9
    ) -> None:
        super().__init__()
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
            raise ValueError(f"ConceptLoss: classes={classes!r} is not a whole number above 0. Give that of the concept head.")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"ConceptLoss: momentum={momentum} is outside [0, 1). Give for example momentum=0.9.")
        _check_temperature("ConceptLoss", "student_temperature", student_temperature)
        _check_temperature("ConceptLoss", "teacher_temperature", teacher_temperature)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(classes))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, () in float32 or wider; see `concept_loss`."""
        return concept_loss(
            student,
            teacher,
            self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )

    @torch.no_grad()
    def update(self, teacher: Tensor) -> None:
        """Move the centre towards the mean of the teacher's logits (..., K), over batch, tokens and all ranks.

        Every rank must call it; ranks may hold different numbers of tokens.
        """
        (logits,) = _same("ConceptLoss.update", teacher=teacher)
        _check_classes("ConceptLoss.update", logits, self.center)
        rows = logits.reshape(-1, logits.shape[-1])
        total = torch.cat([rows.sum(0), rows.new_tensor([float(len(rows))])])  # sum and count in one message
        if _ranks() > 1:
            distributed.all_reduce(total)
        mean = total[:-1] / total[-1]
        self.center.lerp_(mean.to(self.center.dtype), 1.0 - self.momentum)


def contrastive_loss(
    student_1: Tensor, student_2: Tensor, teacher_1: Tensor, teacher_2: Tensor, *, temperature: float = 0.2
) -> Tensor:
    """Which image is it? The student of one view against the teacher of the other, both ways.

    Cross-entropy over cosine similarities / ``temperature``, all images of the batch as negatives, and of the batches of all ranks
    (which must be equally large), times 2 x ``temperature``; the mean over the images, the sum of both ways.

    Args:
        student_1: embeddings of the corrupted first views; these learn.
        student_2: of the corrupted second views.
        teacher_1: of the clean first views; no gradient reaches them.
        teacher_2: of the clean second views.
        temperature: what similarities are divided by.

    Shapes:
        four times (B, d) float -> ().

    Raises:
        TypeError: embeddings that are not float.
        ValueError: shapes that differ or are not (B, d), an empty batch, a ``temperature`` not above 0.

    Source:
        The code that the authors of SiT published.
    """
    _check_temperature("contrastive_loss", "temperature", temperature)
    named = {"student_1": student_1, "student_2": student_2, "teacher_1": teacher_1, "teacher_2": teacher_2}
    embeddings = _same("contrastive_loss", **named)
    if student_1.ndim != 2:
        raise ValueError(
            f"contrastive_loss: embeddings have shape {tuple(student_1.shape)}, not (B, d). Give one an image and view."
        )
    with torch.autocast(student_1.device.type, enabled=False):  # similarities in bfloat16 would differ by 1 % of the temperature
        one, two, first, second = (F.normalize(embedding, dim=1) for embedding in embeddings)
        keys = _gather(torch.stack([first, second], dim=1).detach())  # (ranks * B, 2, d)
        number = torch.arange(len(one), device=one.device) + _rank() * len(one)
        both = F.cross_entropy(one @ keys[:, 1].T / temperature, number) + F.cross_entropy(two @ keys[:, 0].T / temperature, number)
    return 2.0 * temperature * both


def multi_label_loss(logits: Tensor, targets: Tensor, *, reduction: Literal["batchmean", "mean", "sum"] = "batchmean") -> Tensor:
    """The asymmetric loss of timm with the values of MC-SSL: gamma- 4, gamma+ 0, no clip.

    Args:
        logits: before the sigmoid.
        targets: 1 where the label applies, else 0; soft ones work.
        reduction: "batchmean" sums over the labels and averages over the images, "mean" averages over both, "sum" sums over both.

    Shapes:
        (B, c) float, (B, c) of any type -> () float32.

    Raises:
        TypeError: logits that are not float.
        ValueError: shapes that differ or are not (B, c), an empty batch, an unknown ``reduction``.

    Source:
        MC-SSL 4.2. The paper does not name the reduction.
    """
    from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel  # the other losses do without timm

    if reduction not in ("batchmean", "mean", "sum"):
        raise ValueError(f"multi_label_loss: reduction={reduction!r} is unknown. Allowed are 'batchmean', 'mean' and 'sum'.")
    scores, wanted = _same("multi_label_loss", logits=logits, targets=targets.to(logits.dtype))
    if scores.ndim != 2:
        raise ValueError(
            f"multi_label_loss: logits have shape {tuple(scores.shape)}, not (B, c). Give one score an image and label."
        )
    loss = AsymmetricLossMultiLabel(gamma_neg=4, gamma_pos=0, clip=0)
    # as one image: timm's default reduction was the sum once and is the mean over images now, and the two agree here
    total: Tensor = loss(scores.reshape(1, -1), wanted.reshape(1, -1))
    return total / {"batchmean": len(scores), "mean": scores.numel(), "sum": 1}[reduction]


def _masked(who: str, reconstruction: Tensor, clean: Tensor, mask: Tensor, *, squared: bool) -> Tensor:
    """(B,) the mean over manipulated pixels and channels, 0 where there are none."""
    one, other = _same(who, reconstruction=reconstruction, clean=clean)
    if mask.dtype != torch.bool:
        raise TypeError(f"{who}: mask is {mask.dtype}, not bool. Give True where the pixel was manipulated, for example mask > 0.")
    wanted = (one.shape[0], 1, *one.shape[2:])
    if one.ndim < 3 or mask.shape != wanted:
        raise ValueError(
            f"{who}: mask has shape {tuple(mask.shape)} beside images {tuple(one.shape)}; allowed is (B, 1, *S) = {tuple(wanted)}. "
            "Give the mask of the corruption, one value a pixel."
        )
    # both are cut before the difference: a NaN outside the mask would come through 0 * NaN in the gradient
    difference = one.masked_fill(~mask, 0.0) - other.masked_fill(~mask, 0.0)
    total = (difference.square() if squared else difference.abs()).flatten(1).sum(1)
    count = mask.flatten(1).sum(1) * one.shape[1]
    return total / count.clamp(min=1)


def _same(who: str, **tensors: Tensor) -> list[Tensor]:
    """The tensors in the widest of their types and float32, after a check that they are float and of one shape."""
    names, shape = list(tensors), next(iter(tensors.values())).shape
    dtype = torch.float32
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{who}: {name} is {tensor.dtype}, not a float type. Give the normalised values, or {name}.float().")
        if tensor.shape != shape:
            raise ValueError(
                f"{who}: {name} has shape {tuple(tensor.shape)} and {names[0]} {tuple(shape)}; they must be alike. Give both for "
                "the same images, in the same order."
            )
        dtype = torch.promote_types(dtype, tensor.dtype)
    if math.prod(shape) == 0 or not shape:
        raise ValueError(f"{who}: {names[0]} has shape {tuple(shape)}: nothing to average. Give one image or more.")
    return [tensor.to(dtype) for tensor in tensors.values()]


def _reduce(who: str, losses: Tensor, reduction: Reduction) -> Tensor:
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"{who}: reduction={reduction!r} is unknown. Allowed are 'mean', 'sum' and 'none'.")


def _check_temperature(who: str, name: str, value: float) -> None:
    if not 0.0 < value < math.inf:
        raise ValueError(f"{who}: {name}={value} is not a finite number above 0. Give for example {name}=0.1.")


def _check_classes(who: str, logits: Tensor, center: Tensor) -> None:
    if center.shape != logits.shape[-1:]:
        raise ValueError(
            f"{who}: the centre has shape {tuple(center.shape)} beside logits {tuple(logits.shape)}; allowed is (K,) = "
            f"({logits.shape[-1]},). Build the loss with the number of classes of the concept head."
        )


def _ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _rank() -> int:
    return distributed.get_rank() if _ranks() > 1 else 0


def _gather(tensor: Tensor) -> Tensor:
    """The tensors of all ranks one behind the other; no gradient passes."""
    if _ranks() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(_ranks())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)
