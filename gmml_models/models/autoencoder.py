"""The autoencoder of GMML: a timm vision transformer, and a light decoder on the average of several blocks.

B images, C channels, d the width of the encoder, (h, w) the grid of patches, N = h*w. Blocks count from 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_models.errors import WrongKeysError
from gmml_models.hub.model_card import model_card
from gmml_models.models import geometry, pretrained
from gmml_models.models.decoders import Encoded, build_decoder, encode_tokens
from gmml_models.models.encoders import build_encoder, describe_encoder
from gmml_models.models.geometry import default_blocks, final_norm
from gmml_models.models.patches import Target, check_target
from gmml_models.models.pushing import Pushable
from gmml_models.models.restore import restore, to_pixels


class GMMLAutoencoder(Pushable):
    """Reconstructs images from corrupted images. The model does no masking itself: the caller corrupts the images.

    The patch tokens of ``blocks`` are averaged, passed through the encoder's final norm and decoded. Images may have a size other
    than the encoder's, if it is a multiple of the patch size. `gmml_aug` corrupts data with one to three dimensions; these
    encoders take two-dimensional images.

    Args:
        encoder: a name (ours in `gmml_models.models.encoders.SHORT_NAMES`, or one of timm's vision transformers), or a timm
            `VisionTransformer` without classifier, which is used as it is, not copied.
        blocks: the blocks to average, counting from 1, ascending; by default those at a half, two thirds, five sixths and all
            of the depth. Blocks after the last of these are not run in ``forward``, and get no gradient.
        decoder: ``"paper"``, ``"release"`` or ``"mc_ssl"``: see `gmml_models.models.decoders`.
        img_size: side of the images, or (height, width); by default that of the named model.
        patch_size: side of a patch, or (height, width); by default that of the named model.
        in_chans: channels of the images; by default those of the named model.
        mean: the mean per channel that the images were normalised by; it is recorded for users of the weights, and not applied
            here. By default it is the mean in the ``pretrained_cfg`` of an encoder that is already built or pretrained, or else
            ImageNet's for three channels and 0 otherwise.
        std: the standard deviation per channel, in the same form and with the same defaults, except that it is 1 where the mean
            is 0.
        target: the meaning of the decoder's output: ``"pixels"``, the values of the images, or ``"normalised"``, those of
            `gmml_models.models.patches.normalise_patches`. A call returns the output unchanged; ``restore`` returns pixels in both
            cases.
        options: other arguments of timm's `VisionTransformer`, and ``pretrained``.

    Shapes:
        images (B, C, H, W), normalised, float -> the same shape.

    Raises:
        TypeError: ``encoder`` or an option has the wrong type.
        ValueError: the name is unknown, the encoder does not have the blocks, or ``mean`` or ``std`` do not fit the channels; at
            the call, images have other channels or a size that is not a multiple of the patch size.

    Source:
        GMML 2.3 with B = {6, 8, 10, 12} of 12 blocks; the blocks for other depths are our choice. Equation 3 has a sum, but the
        text says "averaging"; here it is an average. The norm after it comes from the authors' release; the paper does not
        mention it. The normalised target is MAE's.
    """

    def __init__(
        self,
        encoder: str | VisionTransformer,
        *,
        blocks: Sequence[int] | None = None,
        decoder: str = "paper",
        img_size: int | tuple[int, int] | None = None,
        patch_size: int | tuple[int, int] | None = None,
        in_chans: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: Target = "pixels",
        **options: Any,
    ) -> None:
        super().__init__()
        check_target("GMMLAutoencoder", target)
        vit = build_encoder(encoder, img_size=img_size, patch_size=patch_size, in_chans=in_chans, **options)
        drops = not isinstance(vit.patch_drop, nn.Identity)
        if drops:
            raise ValueError(
                "GMMLAutoencoder: this encoder drops patches in training, but every patch has to be reconstructed. Build it "
                "with patch_drop_rate=0."
            )
        self.encoder = vit
        self.blocks = default_blocks(len(vit.blocks)) if blocks is None else self._check_blocks("blocks", blocks)
        self.decoder_name = decoder
        self.decoder = build_decoder(decoder, vit.embed_dim, self.patch_size, self.in_chans)
        self.target: Target = target
        self.mean, self.std = geometry.statistics("GMMLAutoencoder", vit, mean, std)

    def forward(self, images: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) from corrupted ones."""
        grid = geometry.check_images("GMMLAutoencoder", self.encoder, images)
        features: Any = self.encoder.forward_intermediates(
            images, indices=[block - 1 for block in self.blocks], output_fmt="NLC", intermediates_only=True, stop_early=True
        )  # one (B, N, d) a block, without class token
        return self._decoded(features, grid)

    def encode(self, images: Tensor, blocks: Sequence[int] | None = None) -> Encoded:
        """Return the class token, the patch tokens and the features of chosen blocks.

        Args:
            images: (B, C, H, W).
            blocks: the blocks whose features are returned, counting from 1, ascending; by default those of the model, () for
                none.
        """
        grid = geometry.check_images("GMMLAutoencoder", self.encoder, images)
        chosen = self.blocks if blocks is None else self._check_blocks("encode: blocks", blocks, least=0)
        return encode_tokens(self.encoder, images, chosen, grid)

    def decode(self, encoded: Encoded) -> Tensor:
        """Decode the result of ``encode(images)`` to images (B, C, H, W); together they equal a call with these images."""
        return self._decoded(encoded.features, encoded.grid)

    @torch.no_grad()
    def restore(self, corrupted: Tensor, *, clean: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Restore images, in their value range whatever the ``target``; see `gmml_models.models.restore.restore`."""
        return restore(self, corrupted, clean=clean, mask=mask)

    def pixels(self, decoded: Tensor, images: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """Convert the decoder's output to the value range of the images; see `gmml_models.models.restore.to_pixels`."""
        return to_pixels(decoded, images, target=self.target, patch_size=self.patch_size, mask=mask)

    def _decoded(self, features: Sequence[Tensor], grid: tuple[int, int]) -> Tensor:
        fused = features[0]
        for feature in features[1:]:
            fused = fused + feature
        fused = final_norm(self.encoder)(fused / len(features))
        images: Tensor = self.decoder(fused, grid)
        return images

    def compile(self, *words: Any, **options: Any) -> None:
        """Compile `forward` and `encode` in place; the arguments are those of `torch.compile`.

        `decode` is not compiled on its own: it is only a few matrix products, and Dynamo would warn about inputs that are not
        leaves.
        """
        for name in ("forward", "encode"):
            setattr(self, name, torch.compile(getattr(self, name), *words, **options))

    @staticmethod
    def _card(config: Mapping[str, Any]) -> str:
        return model_card(config)

    def _beside(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of the decoder."""
        return {name: tensor for name, tensor in tensors.items() if name.startswith("decoder.")}

    def _described(self) -> dict[str, Any]:
        """The decoder, blocks, target and numbers of parameters, for the config."""
        return {
            "decoder": self.decoder_name,
            "blocks": list(self.blocks),
            **({} if self.target == "pixels" else {"target": self.target}),
            "parameters": {"encoder": pretrained.count(self.encoder), "decoder": pretrained.count(self.decoder)},
        }

    @classmethod
    def _check_config(cls, ours: Mapping[str, Any], source: str) -> None:
        """Raise a `WrongKeysError` if the config describes no decoder of gmml."""
        if ours.get("decoder") is None:
            raise WrongKeysError(
                f"GMMLAutoencoder: {source} holds an encoder, but no decoder of gmml. Load it with gmml_models.from_pretrained."
            )

    @classmethod
    def _built(cls, encoder: VisionTransformer, config: Mapping[str, Any], source: str) -> Self:
        """Build the autoencoder that a config describes, with this encoder."""
        ours, normalised = config["gmml"], config.get("pretrained_cfg", {})
        return cls(
            encoder,
            blocks=ours.get("blocks"),
            decoder=ours["decoder"],
            mean=normalised.get("mean"),
            std=normalised.get("std"),
            target=ours.get("target", "pixels"),
        )

    def _fill(self, tensors: Mapping[str, Tensor], source: str) -> None:
        """Load the decoder; other heads in the file are ignored."""
        decoder = {name.removeprefix("decoder."): tensor for name, tensor in tensors.items() if not name.startswith("heads.")}
        pretrained.fill(self.decoder, decoder, f"{pretrained.DECODER} of {source}")

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

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that rebuild this model, in JSON types: ``GMMLAutoencoder(**model.config)``.

        It does not include the weights.

        Raises:
            ValueError: the encoder cannot be described; see `gmml_models.models.encoders.describe_encoder`.
        """
        architecture, arguments = describe_encoder(self.encoder)
        return {
            "encoder": architecture,
            **arguments,
            "blocks": list(self.blocks),
            "decoder": self.decoder_name,
            "mean": list(self.mean),
            "std": list(self.std),
            "target": self.target,
        }

    def _check_blocks(self, what: str, blocks: Sequence[int], least: int = 1) -> tuple[int, ...]:
        depth = len(self.encoder.blocks)
        return geometry.check_blocks(f"GMMLAutoencoder: {what}", blocks, depth, example=default_blocks(depth), least=least)
