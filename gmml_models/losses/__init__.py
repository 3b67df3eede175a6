"""Losses on reconstructions, concepts, embeddings and labels.

All losses are computed in float32 or wider, under autocast too, and returned in that dtype. Means are taken per image first, so
the mean of the losses of two halves of a batch is the loss of the batch (except for `contrastive_loss`, whose negatives are the
other images of the batch).
"""

from gmml_models.losses.distillation import ConceptLoss, concept_loss, contrastive_loss
from gmml_models.losses.labels import multi_label_loss
from gmml_models.losses.pixels import Reduction, l1, l2, masked_l1, masked_l2

__all__ = [
    "ConceptLoss",
    "Reduction",
    "concept_loss",
    "contrastive_loss",
    "l1",
    "l2",
    "masked_l1",
    "masked_l2",
    "multi_label_loss",
]
