"""Models, training recipes and a small model zoo for `gmml_aug`, and the command line ``gmml``.

Importing this package is fast: every name is imported on first use.
"""

from typing import TYPE_CHECKING

from gmml_models.lazy import lazily

if TYPE_CHECKING:
    from gmml_aug import __version__
    from gmml_models.convert.others import encoder_from
    from gmml_models.convert.releases import convert_checkpoint
    from gmml_models.evaluate.embed import features, transform
    from gmml_models.losses import ConceptLoss, concept_loss, contrastive_loss, l1, l2, masked_l1, masked_l2, multi_label_loss
    from gmml_models.models.autoencoder import GMMLAutoencoder
    from gmml_models.models.classifier import Classifier
    from gmml_models.models.decoders import Encoded
    from gmml_models.models.encoders import build_encoder
    from gmml_models.models.heads import ConceptHead
    from gmml_models.models.loading import create_model, from_pretrained
    from gmml_models.models.registry import list_models
    from gmml_models.objectives import GMML, MCSSL, Autoencode, ContrastiveHead, Objective, Reconstruction, SiT

_WHERE = {
    "gmml_aug": ["__version__"],
    "gmml_models.models.autoencoder": ["GMMLAutoencoder"],
    "gmml_models.models.decoders": ["Encoded"],
    "gmml_models.convert.others": ["encoder_from"],
    "gmml_models.convert.releases": ["convert_checkpoint"],
    "gmml_models.models.encoders": ["build_encoder"],
    "gmml_models.models.heads": ["ConceptHead"],
    "gmml_models.evaluate.embed": ["features", "transform"],
    "gmml_models.losses": [
        "ConceptLoss",
        "concept_loss",
        "contrastive_loss",
        "l1",
        "l2",
        "masked_l1",
        "masked_l2",
        "multi_label_loss",
    ],
    "gmml_models.models.classifier": ["Classifier"],
    "gmml_models.objectives": ["GMML", "MCSSL", "Autoencode", "ContrastiveHead", "Objective", "Reconstruction", "SiT"],
    "gmml_models.models.loading": ["create_model", "from_pretrained"],
    "gmml_models.models.registry": ["list_models"],
}
_MODULES = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "GMML",
    "MCSSL",
    "Autoencode",
    "Classifier",
    "ConceptHead",
    "ConceptLoss",
    "ContrastiveHead",
    "Encoded",
    "GMMLAutoencoder",
    "Objective",
    "Reconstruction",
    "SiT",
    "__version__",
    "build_encoder",
    "concept_loss",
    "contrastive_loss",
    "convert_checkpoint",
    "create_model",
    "encoder_from",
    "features",
    "from_pretrained",
    "l1",
    "l2",
    "list_models",
    "masked_l1",
    "masked_l2",
    "multi_label_loss",
    "transform",
]

__getattr__, __dir__ = lazily(__name__, _MODULES, __all__)
