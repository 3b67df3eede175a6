"""The model card of a fine-tuned classifier."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gmml_models.hub.model_card import model_card

_LISTED = 20


def classifier_card(config: Mapping[str, Any]) -> str:
    """The text of ``README.md`` of a folder that holds an encoder and the head of a classifier.

    That of `gmml_models.hub.model_card.model_card`, but for what it says of features alone.

    Args:
        config: as ``config.json``.
    """
    parts = model_card(config).split("\n\n")
    about = next(place for place, part in enumerate(parts) if part.startswith("A timm `"))
    parts[about] = "\n\n".join(_about(config["architecture"], config["gmml"]["classifier"]))
    return "\n\n".join(parts).replace(_OF_AUTOENCODERS, _OF_CLASSIFIERS)


_OF_AUTOENCODERS = (
    'model = gmml_models.GMMLAutoencoder.from_pretrained("NAME")  # with the decoder, if decoder.safetensors is there\n'
)
_OF_CLASSIFIERS = (
    'model = gmml_models.Classifier.from_pretrained("NAME")  # with the head\n'
    "probabilities = model.probabilities(images)  # (B, C, H, W), normalised by model.mean and model.std; columns: model.classes\n"
)


def _about(architecture: str, told: Mapping[str, Any]) -> list[str]:
    seen = {"token": "the class token", "mean": "the mean of the patch tokens", "both": "class token and mean of the patch tokens"}
    names = [str(name) for name in told["classes"]]
    # in a fence, one name a line: no name can break out of it
    listed = ["".join(letter for letter in name if letter.isprintable() and letter != "`") for name in names[:_LISTED]]
    more = [] if len(names) <= _LISTED else [f"... and {len(names) - _LISTED} more, in config.json"]
    what = "labels, any number an image" if told["multi_label"] else "classes, one an image"
    return [
        f"A timm `{architecture}` encoder, fine-tuned with labels by gmml, and a head on {seen.get(told['pool'], told['pool'])} "
        f"that tells {len(names)} {what}. timm and transformers load the encoder alone.",
        "\n".join(["```text", *listed, *more, "```"]),
    ]
