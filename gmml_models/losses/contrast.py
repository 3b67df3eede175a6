"""Which image is it? Embeddings of students against those of teachers.

B images, d the width of an embedding.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from gmml_models.distributed import gather, rank
from gmml_models.losses.checks import check_temperature, same


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
    check_temperature("contrastive_loss", "temperature", temperature)
    named = {"student_1": student_1, "student_2": student_2, "teacher_1": teacher_1, "teacher_2": teacher_2}
    embeddings = same("contrastive_loss", **named)
    if student_1.ndim != 2:
        raise ValueError(
            f"contrastive_loss: embeddings have shape {tuple(student_1.shape)}, not (B, d). Give one an image and view."
        )
    with torch.autocast(student_1.device.type, enabled=False):  # similarities in bfloat16 would differ by 1 % of the temperature
        one, two, first, second = (F.normalize(embedding, dim=1) for embedding in embeddings)
        keys = gather(torch.stack([first, second], dim=1).detach())  # (ranks * B, 2, d)
        number = torch.arange(len(one), device=one.device) + rank() * len(one)
        both = F.cross_entropy(one @ keys[:, 1].T / temperature, number) + F.cross_entropy(two @ keys[:, 0].T / temperature, number)
    return 2.0 * temperature * both
