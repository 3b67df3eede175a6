"""A corruption as CUDA graphs, for loops whose steps are so short that the host time of a call matters."""

from __future__ import annotations

from typing import NamedTuple, final

import torch
from torch import Tensor

from gmml_aug.adapters.loops import check_corruption
from gmml_aug.backends.base import Choice
from gmml_aug.backends.call import Corrupted, CorruptedPair
from gmml_aug.backends.kept import held
from gmml_aug.chance import draw_keys
from gmml_aug.checks import check_integer, check_keys
from gmml_aug.corruption import Corruption

_WARM_UP = 3  # calls before a capture: kernels are compiled and tables sent, which a capture does not allow


class _Recorded(NamedTuple):
    graph: torch.cuda.CUDAGraph
    images: Tensor
    keys: Tensor
    result: Corrupted | CorruptedPair
    tables: list[object]  # what was prepared for the program: the graph reads its memory, and a cache may let it go


@final
class Graphed:
    """A corruption recorded as a CUDA graph, one for each shape, dtype and layout of the images.

    Every replay draws new random numbers.

    ``graphed(images, keys=keys)`` returns the same as ``corrupt(images, keys=keys)``. The graph reads and writes its own memory:
    the images are copied into it, unless they already are ``graphed.buffer(...)``, and **the next call with images of that shape
    overwrites the result**. A graph keeps the memory of its batch and its result allocated.

    Args:
        corrupt: the corruption to apply.
        dtype: if given, the images are bytes, and ``corrupt.from_bytes`` with this dtype is recorded instead of the call.
        clean: with ``dtype``, True to return the clean images as well.
        donors: (N, C, *S) images that aliens are taken from; the graph reads their memory at every replay, so write into it to
            change them.
        backend: as in a call.
        most: largest number of graphs to keep; when it is exceeded, the oldest one is dropped.

    Raises:
        TypeError: ``corrupt`` is not a corruption; at the call, anything that the corruption refuses.
        ValueError: at the call, the images are not on a CUDA device, or require a gradient.
    """

    def __init__(
        self,
        corrupt: Corruption,
        *,
        dtype: torch.dtype | None = None,
        clean: bool = True,
        donors: Tensor | None = None,
        backend: Choice = "auto",
        most: int = 8,
    ) -> None:
        self.corrupt = check_corruption("Graphed", corrupt)
        self.dtype, self.clean, self.donors, self.backend = dtype, clean, donors, backend
        self.most = check_integer("Graphed", "most", most, 1)
        self._recorded: dict[object, _Recorded] = {}

    def __call__(
        self, images: Tensor, *, keys: Tensor | None = None, generator: torch.Generator | None = None, rank: int | None = None
    ) -> Corrupted | CorruptedPair:
        """Copy the images and the keys into the graph's own buffers, and replay it.

        Args:
            images: (B, C, *S), as in a call.
            keys: (B,) int64; by default drawn as in a call, from the generator.
            generator: draws the keys; by default torch's global generator for the device.
            rank: as in a call.

        Returns:
            The result of the corruption, in memory that the next call with images of this shape overwrites.
        """
        recorded = self._of(images)
        if keys is None:
            keys = draw_keys(len(images), images.device, generator, rank)
        elif generator is not None:
            raise ValueError("Graphed: got both keys and a generator. Give one of them.")
        recorded.keys.copy_(check_keys(keys, len(images), images.device))
        if images.data_ptr() != recorded.images.data_ptr():
            recorded.images.copy_(images)
        recorded.graph.replay()
        return recorded.result

    def buffer(self, images: Tensor) -> Tensor:
        """The buffer that the graph reads for images of this shape, dtype, device and layout: write the next batch into it."""
        return self._of(images).images

    def _of(self, images: Tensor) -> _Recorded:
        if not isinstance(images, Tensor) or not images.is_cuda:
            where = images.device if isinstance(images, Tensor) else type(images).__name__
            raise ValueError(f"Graphed: only images on a CUDA device can be recorded, not {where}. Call the corruption itself.")
        if images.requires_grad and torch.is_grad_enabled():
            raise ValueError("Graphed: a graph gives no gradients to the images. Detach them, or call the corruption itself.")
        key = images.shape, images.dtype, images.device, images.stride()
        if key not in self._recorded:
            if len(self._recorded) >= self.most:
                del self._recorded[next(iter(self._recorded))]
            self._recorded[key] = self._record(images)
        return self._recorded[key]

    def _record(self, images: Tensor) -> _Recorded:
        own, keys = torch.empty_like(images).copy_(images), torch.arange(len(images), device=images.device)
        with torch.cuda.device(images.device), torch.no_grad():
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(_WARM_UP):
                    self._run(own, keys)
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # of this thread alone: that which pins a loader's batches asks for memory meanwhile, and would end the capture
            with held() as tables, torch.cuda.graph(graph, capture_error_mode="thread_local"):
                result = self._run(own, keys)
        return _Recorded(graph, own, keys, result, tables)

    def _run(self, images: Tensor, keys: Tensor) -> Corrupted | CorruptedPair:
        if self.dtype is None:
            return self.corrupt(images, keys=keys, donors=self.donors, backend=self.backend)
        if self.clean:
            return self.corrupt.from_bytes(images, keys=keys, donors=self.donors, dtype=self.dtype, backend=self.backend)
        return self.corrupt.from_bytes(images, keys=keys, donors=self.donors, dtype=self.dtype, clean=False, backend=self.backend)
