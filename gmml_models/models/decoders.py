"""The output of an encoder, and the decoders that turn its patch tokens into pixels.

B images, C channels, d the width of the tokens, (h, w) the grid of patches, N = h*w, (H, W) = (h, w) x patch the image. Blocks
count from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, final

from torch import Tensor, nn

from gmml_models.models.geometry import final_norm

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


class Encoded(NamedTuple):
    """The output of an encoder.

    Attributes:
        cls: (B, d) the class token of the last block after the final norm; None if the encoder has none.
        patches: (B, N, d) the patch tokens of the last block after the final norm.
        features: one (B, N, d) per chosen block: its patch tokens as they leave the block, without the final norm.
        grid: (h, w), the numbers of rows and columns of patches.
    """

    cls: Tensor | None
    patches: Tensor
    features: tuple[Tensor, ...]
    grid: tuple[int, int]


def encode_tokens(encoder: VisionTransformer, images: Tensor, blocks: Sequence[int], grid: tuple[int, int]) -> Encoded:
    """Compute the class token, the patch tokens and the features of chosen blocks in one pass.

    Args:
        encoder: timm's.
        images: (B, C, H, W), normalised, of a size that is a multiple of the patch size.
        blocks: the blocks whose features are returned, counting from 1, ascending; () for none.
        grid: (h, w) of these images.
    """
    depth = len(encoder.blocks)
    asked = [block - 1 for block in blocks if block < depth]
    found: Any = encoder.forward_intermediates(
        images, indices=[*asked, depth - 1], output_fmt="NLC", intermediates_only=True, return_prefix_tokens=True
    )  # (B, N, d) a block, or pairs of it and the (B, P, d) prefix tokens
    prefixed = encoder.num_prefix_tokens > 0
    features = tuple(pair[0] for pair in found) if prefixed else tuple(found)
    norm = final_norm(encoder)
    cls = norm(found[-1][1][:, 0]) if encoder.has_class_token else None
    kept = features if depth in blocks else features[:-1]
    return Encoded(cls, norm(features[-1]), kept, grid)


class Decoder(nn.Module):
    """Pointwise ``layers`` on every token, followed by one transposed convolution ``to_pixels`` with kernel = stride = patch.

    Args:
        width: d, the width of the tokens.
        patch_size: (height, width) of a patch.
        channels: C, the number of channels of the images.
        layers: the pointwise layers, from d to ``bottleneck``.
        bottleneck: the width of their output.

    Shapes:
        tokens (B, h*w, d), grid (h, w) -> images (B, C, H, W).
    """

    def __init__(self, width: int, patch_size: tuple[int, int], channels: int, layers: nn.Sequential, bottleneck: int) -> None:
        super().__init__()
        self.width = width
        self.layers = layers
        self.to_pixels = nn.ConvTranspose2d(bottleneck, channels, kernel_size=patch_size, stride=patch_size)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Decode tokens (B, h*w, d) to images (B, C, H, W).

        Raises:
            ValueError: the tokens are not (B, h*w, d).
        """
        if tokens.ndim != 3 or tokens.shape[1] != grid[0] * grid[1] or tokens.shape[2] != self.width:
            raise ValueError(
                f"{type(self).__name__}: tokens have shape {tuple(tokens.shape)}, not (B, {grid[0]} x {grid[1]}, {self.width}). "
                "Give the patch tokens alone, without the class token, and the grid (h, w) that they fill."
            )
        features = self.layers(tokens)  # (B, h*w, bottleneck)
        plane = features.transpose(1, 2).unflatten(2, grid)  # (B, bottleneck, h, w), a view
        images: Tensor = self.to_pixels(plane)
        return images


@final
class PaperDecoder(Decoder):
    """Two (linear, ReLU) pairs of the encoder's width.

    Source:
        GMML 2.3: "two point-wise convolution layers (...) with ReLU non-linearity and a transposed convolution". The paper gives no
        widths; using the encoder's width, and a ReLU after each of the two layers, is our choice.
    """

    def __init__(self, width: int, patch_size: tuple[int, int], channels: int) -> None:
        layers = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        super().__init__(width, patch_size, channels, layers, width)


@final
class ReleaseDecoder(Decoder):
    """Three (linear, GELU) pairs of the encoder's width.

    Source:
        The code published by the authors of GMML; GMML 2.3 has two layers with ReLU instead.
    """

    def __init__(self, width: int, patch_size: tuple[int, int], channels: int) -> None:
        layers = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(width, width), nn.GELU())))
        super().__init__(width, patch_size, channels, layers, width)


@final
class MCSSLDecoder(Decoder):
    """Two (linear, GELU) pairs of width 2048, and a linear bottleneck of 256.

    Source:
        MC-SSL 3.2.1: "3 fully connected layers; first two with 2048 neurons and GeLU", a "bottleneck layer with 256 neurons,
        followed by a transposed convolution".
    """

    def __init__(self, width: int, patch_size: tuple[int, int], channels: int, hidden: int = 2048, bottleneck: int = 256) -> None:
        layers = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        super().__init__(width, patch_size, channels, layers, bottleneck)


_DECODERS = {"paper": PaperDecoder, "release": ReleaseDecoder, "mc_ssl": MCSSLDecoder}
DECODERS = tuple(_DECODERS)


def build_decoder(name: str, width: int, patch_size: tuple[int, int], channels: int) -> Decoder:
    """Build a decoder by its name in `DECODERS`.

    Raises:
        ValueError: another name.
    """
    if name not in _DECODERS:
        raise ValueError(
            f"build_decoder: decoder={name!r} is unknown. Allowed: {', '.join(map(repr, DECODERS))}: two layers with ReLU as in "
            "the GMML paper, three with GELU as in its release, or the wide one of MC-SSL."
        )
    decoder: Decoder = _DECODERS[name](width, patch_size, channels)
    return decoder
