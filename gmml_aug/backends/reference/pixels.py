"""The pixels of each operation: functions (operation, scene, drawn) -> pixels, on any device, in one graph, differentiable."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from gmml_aug.chance import mix, to_normal
from gmml_aug.colours import average, deviation
from gmml_aug.functional import blur_window, column, gaussian_blur, gaussian_taps, like, to_grey
from gmml_aug.ops import Colour, Convolve, Draw, Mix, Operation, Pixels, Scene, Take, Tensors, function_of
from gmml_aug.tensors import followed, readable
from gmml_aug.values import UNIFORM, noise_statistics, pixel_statistics

_CHANNELS_A_WORD = 4  # 16 random bits each
_SMALL = 48 * 48  # pixels: blurred whole, many at once, since boxes would cost more calls than work


def pixels(operation: Operation, scene: Scene, drawn: Tensors) -> Tensor:
    """The new pixels of a step, broadcastable to (B, C, *S); they are used where ``scene.mask`` is True."""
    own = FUNCTIONS.get(type(operation))
    if own is not None:
        made: Tensor = own(operation, scene, drawn)
        return made
    function = function_of(operation, "reference")
    assert function is not None  # `can` has asked
    return ask(operation, function, scene, drawn)


def ask(operation: Operation, function: Pixels, scene: Scene, drawn: Tensors) -> Tensor:
    """Return the pixels of a user's fill, or raise an error if it writes to the scene or returns something that does not fit."""
    watched = () if followed() else (scene.now, scene.clean, scene.donors)
    before = [_version(one) for one in watched]
    made = cast(object, function(operation, scene, drawn))
    who, shape = type(operation).__name__, tuple(scene.now.shape)
    if before != [_version(one) for one in watched]:
        raise ValueError(
            f"{who}: pixels wrote to scene.now, scene.clean or scene.donors, which are read-only: pixels outside the mask, "
            "or the caller's own images, would change. Return new pixels: scene.now * 2, not scene.now.mul_(2)."
        )
    if not isinstance(made, Tensor):
        raise TypeError(f"{who}: pixels returned {type(made).__name__}. Return a tensor that broadcasts to {shape}.")
    lengths = list(zip(reversed(made.shape), reversed(shape), strict=False))
    if made.ndim > len(shape) or any(length not in (1, wanted) for length, wanted in lengths):
        raise ValueError(f"{who}: pixels returned shape {tuple(made.shape)}, which does not broadcast to the images, {shape}.")
    return made


def _version(images: Tensor) -> int:
    """How often torch has written to this memory; inference tensors do not keep count."""
    return -1 if images.is_inference() else images._version


def _colour(operation: Colour, scene: Scene, drawn: Tensors) -> Tensor:
    """(B, C, 1, ...) or one number, which is broadcast when it is written."""
    if operation.source == "zeros":
        return scene.now.new_zeros(())
    values = average(scene.clean) if operation.source == "mean" else drawn[0]
    return like(column(values, scene.now.ndim), scene.now)


def _take(operation: Take, scene: Scene, drawn: Tensors) -> Tensor:
    """Pixels of the donors, or of the clean images themselves, shifted or not."""
    source = scene.donors if operation.donor else scene.clean
    if not operation.moved:
        return source.index_select(0, drawn[0]) if operation.donor else source
    count = drawn[0] if operation.donor else torch.arange(len(drawn[-1]), device=drawn[-1].device)
    return _shifted(source, count, drawn[-1], scene.mask if readable(source) else None)


def _shifted(images: Tensor, number: Tensor, shift: Tensor, mask: Tensor | None) -> Tensor:
    """The images with these numbers (B,), moved by a shift (B, dims): the content at p comes from p + shift, modulo the image.

    A mask is given on the CPU, where single images are copied faster: images without a True pixel are left undefined.
    """
    size = images.shape[2:]
    if mask is not None:
        moved = images.new_empty(shift.shape[0], *images.shape[1:])
        axes = tuple(range(1, images.ndim - 1))
        for image in mask.flatten(1).any(1).nonzero()[:, 0].tolist():
            moved[image] = torch.roll(images[int(number[image])], [-step for step in shift[image].tolist()], axes)
        return moved
    # broadcast indices: the kernel reads B x side numbers per axis, no index of the size of the images exists
    index = [column(number, images.ndim), torch.arange(images.shape[1], device=images.device).reshape(1, -1, *[1] * len(size))]
    for axis, side in enumerate(size):
        place = (torch.arange(side, device=shift.device) + shift[:, axis, None]) % side
        index.append(place.reshape(-1, 1, *[1] * axis, side, *[1] * (len(size) - axis - 1)))
    return images[tuple(index)]


def _draw(operation: Draw, scene: Scene, drawn: Tensors) -> Tensor:
    """Noise for every pixel; one hash of key + position gives 16 random bits for each of four channels."""
    now, channels, size = scene.now, scene.now.shape[1], scene.mask[0].numel()
    table = readable(now)
    compact = table and scene.mask.numel() > _SMALL
    kind = operation.distribution or ("uniform" if now.dtype == torch.uint8 or scene.values == "unit" else "normal")
    if compact:  # on the CPU only where it lands: `at` counts the pixels of all images
        each, batch = scene.mask.flatten(1).sum(1), torch.arange(len(now), device=now.device)
        at, image = scene.mask.flatten().nonzero()[:, 0], batch.repeat_interleave(each)
        start = (drawn[0] - batch * size).repeat_interleave(each) + at
    else:
        start = drawn[0][:, None] + torch.arange(size, device=now.device)
    draws = 1 if operation.per == "pixel" else channels
    word = draw = start
    planes = []
    if kind == "matched":
        means = average(scene.clean.detach())  # (B, C)
        deviations = deviation(scene.clean.detach(), means)
    for c in range(channels):
        if c < draws:
            if c % _CHANNELS_A_WORD == 0:
                word = mix(start + c // _CHANNELS_A_WORD * size)
            bits = (word >> (16 * (c % _CHANNELS_A_WORD))).bitwise_and_(0xFFFF)
            draw = to_normal(bits, table=table) if kind != "uniform" else bits
        if kind == "matched":
            which = (image, c) if compact else (slice(None), c, None)
            planes.append(_in_range(draw * deviations[which] + means[which], scene))
        else:
            planes.append(_uniform(draw, c, scene) if kind == "uniform" else _normal(draw, c, scene, operation.per))
    if not compact:
        return torch.stack(planes, dim=1).reshape(now.shape)
    noise = torch.empty_like(now, memory_format=torch.contiguous_format)
    first = at + image * ((channels - 1) * size)
    for c, plane in enumerate(planes):
        noise.view(-1).index_copy_(0, first + c * size, plane)
    return noise


def _uniform(bits: Tensor, channel: int, scene: Scene) -> Tensor:
    if scene.now.dtype == torch.uint8:
        return (bits >> 8).to(torch.uint8)
    mean, std = noise_statistics(scene.now, scene.values)
    pixel = (bits.to(torch.float32) + 0.5) * 2.0**-16
    return ((pixel - mean[channel]) / std[channel]).to(scene.now.dtype)


def _normal(draw: Tensor, channel: int, scene: Scene, per: str) -> Tensor:
    mean, std = pixel_statistics(scene.now, scene.values)
    middle, spread = UNIFORM
    if scene.now.dtype != torch.uint8 and scene.values != "unit":
        if per == "channel" or scene.values == "normalised":
            return draw.to(scene.now.dtype)
        middle, spread = sum(mean) / len(mean), sum(std) / len(std)
    return _in_range((draw * spread + (middle - mean[channel])) / std[channel], scene)


def _in_range(noise: Tensor, scene: Scene) -> Tensor:
    if scene.values == "unit" and scene.now.is_floating_point():
        noise = noise.clamp(0.0, 1.0)
    return like(noise, scene.now)


def _mix(operation: Mix, scene: Scene, drawn: Tensors) -> Tensor:
    """The current images in grey."""
    return to_grey(scene.now, scene.values)


def _convolve(operation: Convolve, scene: Scene, drawn: Tensors) -> Tensor:
    """The current images, blurred; large ones on the CPU only around the mask."""
    now, (sigma, taps), most = scene.now, drawn, operation.taps[1]
    if not readable(now) or (torch.is_grad_enabled() and now.requires_grad):
        return gaussian_blur(now, sigma, taps, most)
    if scene.mask[0].numel() <= _SMALL:
        return gaussian_blur(now, sigma, taps.masked_fill(~scene.mask.flatten(1).any(1), 1), most)
    blurred = torch.empty_like(now)
    weights = gaussian_taps(sigma, taps, most).tolist()
    for image, window in _bounding_boxes(scene.mask[:, 0]).items():
        heard = [weight for weight in weights[image] if weight > 0.0]
        blurred[(slice(image, image + 1), slice(None), *window)] = blur_window(now[image : image + 1], window, heard)
    return blurred


FUNCTIONS: dict[type, Any] = {Colour: _colour, Take: _take, Draw: _draw, Mix: _mix, Convolve: _convolve}


def _bounding_boxes(inside: Tensor) -> dict[int, list[slice]]:
    """The smallest box around the True pixels of each image in (B, *S) bool, by its number; images without any are left out."""
    pixels, axes = inside.to(torch.uint8), range(1, inside.ndim)
    sides = []
    for axis in axes:
        others = [other for other in axes if other != axis]
        line = pixels.amax(others) if others else pixels
        sides.append(zip(line.argmax(1).tolist(), (line.shape[1] - line.flip(1).argmax(1)).tolist(), strict=True))
    boxes = enumerate(zip(inside.flatten(1).any(1).tolist(), *sides, strict=True))
    return {image: [slice(*side) for side in box] for image, (used, *box) in boxes if used}
