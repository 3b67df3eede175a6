"""An encoder with a pooling and a head, which fine-tuning trains, saves and loads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self, final

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_models.errors import WrongKeysError
from gmml_models.hub.model_card import classifier_card
from gmml_models.models import geometry, pretrained
from gmml_models.models.encoders import build_encoder
from gmml_models.models.pooling import Pool, check_pool, pooled
from gmml_models.models.pushing import Pushable, part_of

_HEAD = "heads.classifier."
_HIDDEN = 2048


@final
class Classifier(Pushable):
    """Maps images to one score per class: logits, before softmax or sigmoid.

    Args:
        encoder: a name (ours in `gmml_models.models.encoders.SHORT_NAMES`, or one of timm's vision transformers), or a timm
            `VisionTransformer` without classifier, which is used as it is, not copied.
        classes: the names of the classes, or their number.
        pool: the pooling of the tokens for the head; see `gmml_models.models.pooling.pooled`.
        multi_label: True if an image may have several of the classes, or none.
        hidden: width of a hidden layer in the head, with GELU; 0 for a linear head. By default it is 2048 with ``multi_label``
            and 0 otherwise.
        img_size: side of the images, or (height, width); by default that of the named model.
        patch_size: side of a patch, or (height, width); by default that of the named model.
        in_chans: channels of the images; by default those of the named model.
        mean: the mean per channel that the images were normalised by; it is recorded for users of the weights. By default it is
            the mean in the ``pretrained_cfg`` of an encoder that is already built or pretrained, or else ImageNet's for three
            channels and 0 otherwise.
        std: the standard deviation per channel, in the same form and with the same defaults, except that it is 1 where the mean
            is 0.
        options: other arguments of timm's `VisionTransformer`, for example ``drop_path_rate``.

    Shapes:
        images (B, C, H, W), normalised, float -> (B, c).

    Raises:
        TypeError: ``encoder``, ``classes`` or an option has the wrong type; at the call, the images are not float.
        ValueError: there are fewer than two classes (one with ``multi_label``), names are equal, the encoder does not support the
            pooling, or `gmml_models.models.encoders.build_encoder` refuses an option; at the call, images have other channels or
            a size that is not a multiple of the patch size.

    Source:
        The linear head is DeiT's, which GMML 3.1 and MC-SSL 4.3 follow. The hidden layer of 2048 with GELU is that of MC-SSL 4.2.
        The initialisation of the head (normal, 0.02, cut at 2; biases 0) is that of DeiT's head.
    """

    def __init__(
        self,
        encoder: str | VisionTransformer,
        classes: int | Sequence[str],
        *,
        pool: Pool = "token",
        multi_label: bool = False,
        hidden: int | None = None,
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
        in_chans: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.classes = _names(classes, least=1 if multi_label else 2)
        self.multi_label = multi_label
        self.hidden = (_HIDDEN if multi_label else 0) if hidden is None else hidden
        if isinstance(self.hidden, bool) or not isinstance(self.hidden, int) or self.hidden < 0:
            raise ValueError(
                f"Classifier: hidden={hidden!r} is not a whole number of at least 0. Give 2048, or 0 for a linear head."
            )
        vit = build_encoder(encoder, img_size=img_size, patch_size=patch_size, in_chans=in_chans, **options)
        check_pool("Classifier", vit, pool)
        self.encoder = vit
        self.pool: Pool = pool
        self.head = _head(vit.embed_dim * (2 if pool == "both" else 1), self.hidden, len(self.classes))
        self.mean, self.std = geometry.statistics("Classifier", vit, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits (B, c) of images (B, C, H, W)."""
        geometry.check_images("Classifier", self.encoder, images)
        scores: Tensor = self.head(pooled(self.encoder, images, self.pool))
        return scores

    def probabilities(self, images: Tensor) -> Tensor:
        """Compute probabilities (B, c) float32: by softmax, or one sigmoid per label."""
        scores: Tensor = self(images).float()
        return scores.sigmoid() if self.multi_label else scores.softmax(-1)

    @staticmethod
    def _card(config: Mapping[str, Any]) -> str:
        return classifier_card(config)

    def _beside(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the head."""
        return {f"{_HEAD}{name}": tensor for name, tensor in part_of(tensors, "head.").items()}

    def _described(self) -> dict[str, Any]:
        """The classes, pooling, head and numbers of parameters, for the config."""
        return {
            "classifier": {
                "classes": list(self.classes),
                "pool": self.pool,
                "multi_label": self.multi_label,
                "hidden": self.hidden,
            },
            "parameters": {"encoder": pretrained.count(self.encoder), "head": pretrained.count(self.head)},
        }

    @classmethod
    def _check_config(cls, ours: Mapping[str, Any], source: str) -> None:
        """Raise a `WrongKeysError` if the config describes no classifier."""
        if not isinstance(ours.get("classifier"), dict):
            raise WrongKeysError(
                f"Classifier: {source} holds no classifier. Train one with gmml finetune --weights {source}, or load its encoder "
                "with gmml_models.from_pretrained."
            )

    @classmethod
    def _built(cls, encoder: VisionTransformer, config: Mapping[str, Any], source: str) -> Self:
        """Build the classifier that a config describes, with this encoder.

        Raises:
            WrongKeysError: the config does not describe a classifier of gmml.
        """
        told, normalised = config["gmml"]["classifier"], config.get("pretrained_cfg", {})
        try:
            return cls(
                encoder,
                told.get("classes", 0),
                pool=told.get("pool", "token"),
                multi_label=bool(told.get("multi_label")),
                hidden=told.get("hidden"),
                mean=normalised.get("mean"),
                std=normalised.get("std"),
            )
        except (TypeError, ValueError) as error:
            raise WrongKeysError(
                f"Classifier: the config of {source} does not describe a classifier of gmml ({error}). Use the config.json that "
                "belongs to these weights."
            ) from error

    def _fill(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Load the head."""
        head = {name.removeprefix(_HEAD): tensor for name, tensor in tensors.items() if name.startswith(_HEAD)}
        pretrained.fill(self.head, head, f"{_HEAD}* in {pretrained.DECODER} of {source}")

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations inside blocks in the backward pass instead of keeping them, which saves memory and costs time."""
        self.encoder.set_grad_checkpointing(enable)

    @property
    def img_size(self) -> tuple[int, int]:
        """(height, width) of the images that the encoder was built for."""
        return geometry.img_size(self.encoder)

    @property
    def patch_size(self) -> tuple[int, int]:
        """(height, width) of a patch."""
        return geometry.patch_size(self.encoder)

    @property
    def in_chans(self) -> int:
        """The number of channels of the images."""
        return geometry.in_chans(self.encoder)


def _head(width: int, hidden: int, classes: int) -> nn.Sequential:
    head = (
        nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, classes))
        if hidden
        else nn.Sequential(nn.Linear(width, classes))
    )
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return head


def _names(classes: int | Sequence[str], least: int) -> tuple[str, ...]:
    if isinstance(classes, bool) or not isinstance(classes, int | list | tuple):
        raise TypeError(f"Classifier: classes={classes!r} is neither a number nor a list of names. Give, for example, classes=10.")
    names = tuple(str(number) for number in range(classes)) if isinstance(classes, int) else tuple(classes)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"Classifier: classes={classes!r} are not all strings. Give the names as strings, or only their number.")
    if len(names) < least:
        what = "label" if least == 1 else "class"
        raise ValueError(f"Classifier: {len(names)} {what}(es) are too few. Give at least {least}.")
    twice = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise ValueError(f"Classifier: the classes {twice[:5]} occur more than once. Give each class a different name.")
    return names
