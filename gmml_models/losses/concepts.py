"""The concepts that a student sees against those that its teacher sees.

K concepts.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gmml_models.distributed import sum_over_ranks
from gmml_models.losses.checks import check_temperature, same
from gmml_models.models.slow_state import SlowState


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
    check_temperature("concept_loss", "student_temperature", student_temperature)
    check_temperature("concept_loss", "teacher_temperature", teacher_temperature)
    learning, target = same("concept_loss", student=student, teacher=teacher)
    _check_classes("concept_loss", target, center)
    wanted = ((target.detach() - center.detach().to(target.dtype)) / teacher_temperature).softmax(-1)
    return -(wanted * (learning / student_temperature).log_softmax(-1)).sum(-1).mean()


@final
class ConceptLoss(SlowState):
    """`concept_loss` with its centre: a moving average of the teacher's logits, which keeps one concept from taking everything.

    Comparing leaves the centre as it is. Call ``observe`` for what a step's forward passes give, however many they are, then
    ``update`` once; or ``update(teacher)`` where there is one pass. What was observed is not kept in the state. The centre is
    float32 whatever the dtype of the model around it.

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
    observed: Tensor

    def __init__(
        self, classes: int, *, student_temperature: float = 0.1, teacher_temperature: float = 0.04, momentum: float = 0.9
    ) -> None:
        super().__init__()
        if isinstance(classes, bool) or not isinstance(classes, int) or classes < 1:
            raise ValueError(f"ConceptLoss: classes={classes!r} is not a whole number above 0. Give that of the concept head.")
        if not 0.0 <= momentum < 1.0:
            raise ValueError(f"ConceptLoss: momentum={momentum} is outside [0, 1). Give for example momentum=0.9.")
        check_temperature("ConceptLoss", "student_temperature", student_temperature)
        check_temperature("ConceptLoss", "teacher_temperature", teacher_temperature)
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.momentum = momentum
        self.register_buffer("center", torch.zeros(classes))
        self.register_buffer("observed", torch.zeros(classes + 1), persistent=False)  # the sum of logits, and their number

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss, () in float32 or wider; see `concept_loss`."""
        return concept_loss(
            student,
            teacher,
            self.center,
            student_temperature=self.student_temperature,
            teacher_temperature=self.teacher_temperature,
        )

    def observe(self, teacher: Tensor) -> None:
        """Note the teacher's logits (..., K) for the next ``update``."""
        self._note("ConceptLoss.observe", teacher)

    @torch.no_grad()
    def update(self, teacher: Tensor | None = None) -> None:
        """Move the centre towards the mean of the logits observed since the last time, over batch, tokens and all ranks.

        Every rank must call it; ranks may have observed different numbers of tokens. Where none observed any, the centre stays.

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
        """Forget what was observed since the last ``update``: for a step that is not taken."""
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
            f"{who}: the centre has shape {tuple(center.shape)} beside logits {tuple(logits.shape)}; allowed is (K,) = "
            f"({logits.shape[-1]},). Build the loss with the number of classes of the concept head."
        )
