"""Decodes anything that holds an image (a file's bytes, a picture, an array) to a uint8 tensor with the requested channels."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from gmml_models.data.image_files import open_upright, to_rgb

_MODES = {1: "L", 3: "RGB"}


def decode(found: Any, channels: int) -> Tensor:
    """Decode one image to a tensor.

    Args:
        found: the bytes of an image file; a Pillow image; a dict with ``bytes`` or ``path``, as in Hugging Face data sets; a
            tensor (C, H, W) or (H, W); an array (H, W, C) or (H, W). Arrays are uint8, uint16, bool, or floats in [0, 1].
        channels: the number of channels of the result. Files and pictures give 1 or 3; they are rotated upright, transparent
            parts become white, only the upper eight of 16 bits are kept, and grey follows ITU-R 601; TIFFs of floats, of 32-bit
            integers or of signed integers are scaled from their darkest to their brightest pixel. An array must have the
            requested number, or 1 or 3 if 1 or 3 are requested.

    Returns:
        (channels, H, W) uint8.

    Raises:
        Exception: anything that the decoder raises for damaged bytes; ValueError or TypeError for something that is not an image.
    """
    if isinstance(found, dict):
        found = found["path"] if found.get("bytes") is None else found["bytes"]
        if isinstance(found, str):
            import fsspec  # type: ignore[import-untyped]  # comes with torch; streamed data sets have addresses here

            with fsspec.open(found, "rb") as file:
                found = file.read()
    if isinstance(found, bytes | bytearray | memoryview):
        return _from_upright(open_upright(io.BytesIO(found)), channels)
    if isinstance(found, Image.Image):
        return from_picture(found, channels)
    if isinstance(found, np.ndarray | Tensor):
        return from_array(found, channels)
    raise TypeError(f"it is a {type(found).__name__}, not a picture, tensor, array or the bytes of a file")


def from_picture(picture: Image.Image, channels: int) -> Tensor:
    """Convert a picture in any of Pillow's modes to (channels, H, W) uint8, in channels_last memory format.

    Raises:
        ValueError: ``channels`` is neither 1 nor 3.
        Exception: anything that Pillow raises for damaged files.
    """
    picture.load()  # raises if the file is truncated
    return _from_upright(ImageOps.exif_transpose(picture), channels)


def _from_upright(upright: Image.Image, channels: int) -> Tensor:
    mode = _MODES.get(channels)
    if mode is None:
        raise ValueError(f"a picture has 1 or 3 channels, but in_chans is {channels}")
    if upright.mode != mode or upright.has_transparency_data:
        upright = to_rgb(upright).convert(mode)
    return torch.from_numpy(np.array(upright)).reshape(upright.height, upright.width, channels).permute(2, 0, 1)


def from_array(values: Tensor | np.ndarray[Any, Any], channels: int) -> Tensor:
    """Convert an array in any recognisable layout to (channels, H, W) uint8.

    Raises:
        ValueError: the axes or the values are not those of an image.
    """
    first = isinstance(values, Tensor)  # by convention tensors have their channels first, arrays last
    # as_tensor takes no negative strides, and warns of memory that may not be written
    tensor = values.detach().cpu() if isinstance(values, Tensor) else torch.as_tensor(np.require(values, requirements=["C", "W"]))
    if tensor.ndim == 2:
        tensor, first = tensor[None], True
    if tensor.ndim != 3 or 0 in tensor.shape:
        raise ValueError(f"its shape is {tuple(tensor.shape)}, not that of one image: (C, H, W), (H, W, C) for arrays, or (H, W)")
    known = {channels, *_MODES} if channels in _MODES else {channels}
    if tensor.shape[0 if first else 2] not in known and tensor.shape[2 if first else 0] in known:
        first = not first
    if not first:
        tensor = tensor.permute(2, 0, 1)
    if tensor.shape[0] not in known:
        raise ValueError(f"it has {tensor.shape[0]} channels (shape {tuple(tensor.shape)}), but in_chans is {channels}")
    tensor = _to_uint8(tensor)
    if tensor.shape[0] == channels:
        return tensor
    if channels == 3:
        return tensor.expand(3, -1, -1)
    return from_picture(Image.fromarray(tensor.permute(1, 2, 0).contiguous().numpy()), channels)


def to_picture(image: Tensor) -> Image.Image:
    """Convert a (C, H, W) uint8 tensor of 1 or 3 channels to a Pillow image."""
    array = image.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


def _to_uint8(tensor: Tensor) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor
    if tensor.dtype == torch.bool:
        return tensor.to(torch.uint8) * 255
    if tensor.dtype == torch.uint16:  # knows no min()
        return tensor.to(torch.float64).div_(257.0).round_().to(torch.uint8)
    if tensor.is_complex():
        raise ValueError("its values are complex")
    low, high = tensor.min().item(), tensor.max().item()
    if tensor.is_floating_point():
        if not (low >= 0.0 and high <= 1.0):  # also where they are not finite
            raise ValueError(
                f"its values are floats from {low:.3g} to {high:.3g}. Give uint8, or floats in [0, 1], before images are normalised"
            )
        return tensor.mul(255.0).round_().to(torch.uint8)
    if not (low >= 0 and high <= 255):
        raise ValueError(f"its values are integers from {low} to {high}. Give uint8, 0 to 255")
    return tensor.to(torch.uint8)
