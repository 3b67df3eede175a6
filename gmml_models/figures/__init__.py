"""The papers' figures for your own images, as functions from tensors to tensors; `gmml_models.figures.sheets` draws them.

Names are imported on first use.
"""

from typing import TYPE_CHECKING

from gmml_models.lazy import lazily

if TYPE_CHECKING:
    from gmml_models.figures.attention_maps import Attention, attention
    from gmml_models.figures.patch_clusters import concept_probabilities, concepts
    from gmml_models.figures.reconstruction import Reconstructions, corruptions, reconstructions

_WHERE = {
    "Attention": ".attention_maps",
    "Reconstructions": ".reconstruction",
    "attention": ".attention_maps",
    "concept_probabilities": ".patch_clusters",
    "concepts": ".patch_clusters",
    "corruptions": ".reconstruction",
    "reconstructions": ".reconstruction",
}

__all__ = ["Attention", "Reconstructions", "attention", "concept_probabilities", "concepts", "corruptions", "reconstructions"]

__getattr__, __dir__ = lazily(__name__, _WHERE, __all__)
