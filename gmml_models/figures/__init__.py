"""The papers' figures of what a model does, on anybody's images: tensors in, tensors out; `gmml_models.figures.sheets` draws them.

Names are imported when they are asked for.
"""

from typing import TYPE_CHECKING

from gmml_models.lazy import lazily

if TYPE_CHECKING:
    from gmml_models.figures.attending import Attention, attention
    from gmml_models.figures.clustering import concept_probabilities, concepts
    from gmml_models.figures.reconstructing import Reconstructions, corruptions, reconstructions

_WHERE = {
    "Attention": ".attending",
    "Reconstructions": ".reconstructing",
    "attention": ".attending",
    "concept_probabilities": ".clustering",
    "concepts": ".clustering",
    "corruptions": ".reconstructing",
    "reconstructions": ".reconstructing",
}

__all__ = ["Attention", "Reconstructions", "attention", "concept_probabilities", "concepts", "corruptions", "reconstructions"]

__getattr__, __dir__ = lazily(__name__, _WHERE, __all__)
