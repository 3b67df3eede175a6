"""Losses between a student and its teacher, on concepts of tokens and embeddings of images, and the exchange between processes.

B images, d the width of an embedding, K concepts.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from gmml_models.losses.pixels import check_temperature, same
from gmml_models.models.slow_state import SlowState


def concept_loss(
    student: Tensor, teacher: Tensor, center: Tensor, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04
) -> Tensor:
    """Cross-entropy of the student's concepts against the teacher's, centred and sharpened, averaged over tokens and images.

    Args:
        student: the student's logits for the corrupted images; gradients flow through them.
        teacher: the teacher's logits for the clean images; no gradient flows through them.
        center: the centre, which is subtracted from the teacher's logits.
        student_temperature: the temperature that divides the student's logits.
        teacher_temperature: the temperature that divides the teacher's logits; lower is sharper.

    Shapes:
        (..., K) float, (..., K) float, (K,) float -> ().

    Raises:
        TypeError: the logits are not float.
        ValueError: the shapes differ, there is nothing to average, or a temperature is not above 0.

    Source:
        MC-SSL 3.2.2. Equation 4 prints neither the minus sign nor a plain sum over K (it divides by K, which would make the loss
        a thousand times smaller than L1), and equation 3 omits the centre that the text describes; this loss is that of DINO and
        of the release.
    """
    check_temperature("concept_loss", "student_temperature", student_temperature)
    check_temperature("concept_loss", "teacher_temperature", teacher_temperature)
    learning, target = same("concept_loss", student=student, teacher=teacher)
    _check_classes("concept_loss", target, center)
    wanted = ((target.detach() - center.detach().to(target.dtype)) / teacher_temperature).softmax(-1)
    return -(wanted * (learning / student_temperature).log_softmax(-1)).sum(-1).mean()


@final
class ConceptLoss(SlowState):
    """`concept_loss` with its centre, a moving average of the teacher's logits that keeps one concept from dominating.

    A call does not change the centre. Call ``observe`` with the logits of each forward pass of a step, then ``update`` once; or
    ``update(teacher)`` if there is one pass. Observed logits are not part of the state. The centre is float32 whatever the dtype
    of the model around it.

    Args:
        classes: K, the number of concepts.
        student_temperature: the temperature that divides the student's logits.
        teacher_temperature: the temperature that divides the teacher's logits; lower is sharper. Both may be changed during
            training.
        momentum: the share of the centre that is kept at each ``update``.

    Raises:
        ValueError: ``classes`` is below 1, a temperature is not above 0, or ``momentum`` is outside [0, 1).

    Source:
        MC-SSL 3.2.2 and its temperatures. The paper does not give the momentum; 0.9 comes from the release.
    """

    center: Tensor
    observed: Tensor

    def __init__(
        self, classes: int, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04, momentum: float = 0.9
    ) -> None:
        super().__init__()
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
            raise ValueError(
                f"ConceptLoss: classes={classes!r} is not a whole number above 0. Give the number of classes of the concept head."
            )
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"ConceptLoss: momentum={momentum} is outside [0, 1). Give, for example, momentum=0.9.")
        check_temperature("ConceptLoss", "student_temperature", student_temperature)
        check_temperature("ConceptLoss", "teacher_temperature", teacher_temperature)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(classes))
        self.register_buffer("observed", torch.zeros(classes + 1), persistent=False)  # the sum of logits, and their number

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Compute the loss, () in float32 or wider; see `concept_loss`."""
        return concept_loss(
            student,
            teacher,
            self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )

    def observe(self, teacher: Tensor) -> None:
        """Record the teacher's logits (..., K) for the next ``update``."""
        self._note("ConceptLoss.observe", teacher)

    @torch.no_grad()
    def update(self, teacher: Tensor | None = None) -> None:
        """Move the centre towards the mean of the logits observed since the last update, over batch, tokens and all ranks.

        Every rank must call it; ranks may have observed different numbers of tokens. If no rank observed any, the centre does not
        move.

        Args:
            teacher: logits (..., K) to observe first.
        """
        if teacher is not None:
            self._note("ConceptLoss.update", teacher)
        sum_over_ranks(self.observed)  # sum and number in one message
        number = self.observed[-1]
        mean = self.observed[:-1] / number.clamp(min=1)
        self.center.lerp_(torch.where(number > 0, mean.to(self.center.dtype), self.center), 1.0 - self.momentum)
        self.discard()

    def discard(self) -> None:
        """Discard the logits observed since the last ``update``, if a step is skipped."""
        self.observed.zero_()

    @torch.no_grad()
    def _note(self, who: str, teacher: Tensor) -> None:
        (logits,) = same(who, teacher=teacher)
        _check_classes(who, logits, self.center)
        rows = logits.reshape(-1, logits.shape[-1])
        self.observed.add_(torch.cat([rows.sum(0), rows.new_full((1,), len(rows))]))


def _check_classes(who: str, logits: Tensor, center: Tensor) -> None:
    if center.shape != logits.shape[-1:]:
        raise ValueError(
            f"{who}: the centre has shape {tuple(center.shape)} for logits {tuple(logits.shape)}; allowed: (K,) = "
            f"({logits.shape[-1]},). Build the loss with the number of classes of the concept head."
        )


def contrastive_loss(
    student_1: Tensor, student_2: Tensor, teacher_1: Tensor, teacher_2: Tensor, *, temperature: float = 0.2
) -> Tensor:
    """Contrastive loss: the student of one view against the teacher of the other view, in both directions.

    It is the cross-entropy over cosine similarities / ``temperature``, times 2 x ``temperature``, averaged over the images and
    summed over both directions. All images of the batch, and of the batches of all ranks (which must be equally large), are
    negatives.

    Args:
        student_1: the student's embeddings of the corrupted first views; gradients flow through them.
        student_2: the same for the corrupted second views.
        teacher_1: the teacher's embeddings of the clean first views; no gradient flows through them.
        teacher_2: the same for the clean second views.
        temperature: the temperature that divides the similarities.

    Shapes:
        four tensors (B, d) float -> ().

    Raises:
        TypeError: the embeddings are not float.
        ValueError: the shapes differ or are not (B, d), the batch is empty, or the ``temperature`` is not above 0.

    Source:
        The code published by the authors of SiT.
    """
    check_temperature("contrastive_loss", "temperature", temperature)
    named = {"student_1": student_1, "student_2": student_2, "teacher_1": teacher_1, "teacher_2": teacher_2}
    embeddings = same("contrastive_loss", **named)
    if student_1.ndim != 2:
        raise ValueError(
            f"contrastive_loss: embeddings have shape {tuple(student_1.shape)}, not (B, d). Give one embedding per image and view."
        )
    with torch.autocast(student_1.device.type, enabled=False):  # similarities in bfloat16 would differ by 1 % of the temperature
        one, two, first, second = (F.normalize(embedding, dim=1) for embedding in embeddings)
        keys = gather(torch.stack([first, second], dim=1).detach())  # (ranks * B, 2, d)
        number = torch.arange(len(one), device=one.device) + rank() * len(one)
        both = F.cross_entropy(one @ keys[:, 1].T / temperature, number) + F.cross_entropy(two @ keys[:, 0].T / temperature, number)
    return 2.0 * temperature * both


def ranks() -> int:
    """The number of processes."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if ranks() > 1 else 0


def gather(tensor: Tensor) -> Tensor:
    """Concatenate the tensors of all ranks, which have the same shape, without gradients."""
    if ranks() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(ranks())]
    distributed.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def sum_over_ranks(tensor: Tensor) -> None:
    """Sum the tensors of all ranks, in place."""
    if ranks() > 1:
        distributed.all_reduce(tensor)
