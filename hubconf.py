"""Entry points for ``torch.hub.load(path or repository, name, ...)``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from gmml_models import GMMLAutoencoder

dependencies = ["torch", "timm", "huggingface_hub", "safetensors"]


def gmml_encoder(source: str | os.PathLike[str], **options: Any) -> VisionTransformer:
    """The plain timm encoder of a folder, a Hub repository or a name of the zoo; options as `gmml_models.from_pretrained`."""
    from gmml_models import from_pretrained

    return from_pretrained(source, **options)


def gmml_autoencoder(source: str | os.PathLike[str], **options: Any) -> GMMLAutoencoder:
    """The autoencoder of a folder, a Hub repository or a name of the zoo; options as `GMMLAutoencoder.from_pretrained`."""
    from gmml_models import GMMLAutoencoder

    return GMMLAutoencoder.from_pretrained(source, **options)
