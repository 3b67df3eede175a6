"""Corruption of batches while a DataLoader makes them, in its workers or in the main process."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from gmml_aug.adapters.loops import check_corruption
from gmml_aug.chance import draw_keys, keys, mix, mix_int, own_rank
from gmml_aug.checks import check_integer
from gmml_aug.corruption import Corruption

_UNSET = -(1 << 63)


@final
class CollateCorrupt:
    """A ``collate_fn`` that corrupts.

    A batch is a dict ``{"clean", "images", "mask", ...}``, which also has the other fields of the samples.

    Donors are the other images of the batch: give the DataLoader ``drop_last=True``. On a GPU, collate as usual and corrupt after
    the transfer instead, which takes no worker time.

    **Randomness.** With ``index``, the keys are ``gmml_aug.keys(seed, epoch, index)``. They determine every random decision,
    whatever the number of workers and processes, so a resumed run draws the same corruptions (with the same donors, if the
    sampler repeats its batches). Call `set_epoch` before each epoch, as for ``DistributedSampler``; it reaches persistent
    workers. Without ``index`` the keys are drawn from torch's own generator in the process that collates, which the DataLoader
    seeds per worker and epoch, and hashed with seed and rank: a run can be repeated from its beginning with the same number of
    workers, but not from the middle.

    Args:
        corrupt: the corruption to apply.
        seed: any integer, one per run.
        index: the field that holds the index of the image in its data set.
        visit: for samplers that give an index more than once in an epoch (repeated augmentation, sampling with replacement): the
            field that holds the number of the visit, which is passed to `gmml_aug.keys` as ``visit``; or True to count visits here:
            the keys then also depend on the rank, the number of the batch since `set_epoch` and the position in it, and an epoch
            cannot be resumed from its middle. By default an index is corrupted in the same way throughout an epoch, except for
            donors, so that any process can repeat an image; the first batch that holds an index twice causes a warning. False:
            without one.
        image: the field that holds the image.
        fields: names for the fields of samples that are tuples or lists; dicts and named tuples already have names.
        collate: a function that turns a list of samples into a batch of the same structure.
        rank: the rank of this process, used only without ``index``; by default the rank of ``torch.distributed`` when this object
            is created, or else the environment variable ``RANK``.

    Shapes:
        samples with an image (C, *S) -> ``clean`` and ``images`` (B, C, *S), ``mask`` (B, 1, *S) bool.

    Raises:
        TypeError: ``corrupt`` is not a corruption; a seed or rank is not an integer; samples have a structure that is not
            supported.
        ValueError: at the call: a field is missing, has no name, or has the same name as one of the three fields that are added;
            no epoch was set, but the keys need one.
    """

    def __init__(
        self,
        corrupt: Corruption,
        *,
        seed: int = 0,
        index: str | None = None,
        visit: str | bool | None = None,
        image: str = "image",
        fields: Sequence[str] = ("image", "label"),
        collate: Callable[[list[Any]], Any] = default_collate,
        rank: int | None = None,
    ) -> None:
        self.corrupt = check_corruption("CollateCorrupt", corrupt)
        self.seed = check_integer("CollateCorrupt", "seed", seed)
        self.rank = check_integer("CollateCorrupt", "rank", own_rank() if rank is None else rank, 0)
        if isinstance(fields, str):
            raise TypeError(
                f"CollateCorrupt: fields={fields!r} is not a list. Give one name per field, for example ('image', 'label')."
            )
        if visit and index is None:
            raise ValueError(
                f"CollateCorrupt: visit={visit!r} needs index=: without it, every sample is drawn independently anyway. Leave it "
                f"out."
            )
        self.index, self.visit, self.image, self.fields, self.collate = index, visit, image, tuple(fields), collate
        # shared memory: workers that live longer than an epoch are told of the next one; how often an epoch was set, and which
        self._epoch = torch.tensor([0, _UNSET]).share_memory_()
        self._warned = False
        self._batches = (0, 0)  # when an epoch was set, and the batches that this process has made since

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch for the batches that follow; call it before iterating over the DataLoader."""
        named = check_integer("CollateCorrupt", "epoch", epoch, 1 - (1 << 63), (1 << 63) - 1)
        self._epoch.copy_(torch.tensor([int(self._epoch[0]) + 1, named]))

    def __call__(self, samples: list[Any]) -> dict[str, Any]:
        """Make a batch of samples and corrupt it."""
        batch = self._named(self.collate(samples))
        if self.image not in batch:
            raise ValueError(
                f"CollateCorrupt: image={self.image!r} is not among the fields of a sample: {', '.join(map(str, batch))}. Name the "
                "field that holds the image."
            )
        clean = batch.pop(self.image)
        taken = sorted({"clean", "images", "mask"} & batch.keys())
        if taken:
            raise ValueError(
                f"CollateCorrupt: samples have {' and '.join(taken)} besides their image, but the batch uses these names "
                "itself. Rename "
                f"them in the data set."
            )
        if not isinstance(clean, Tensor):
            raise TypeError(
                f"CollateCorrupt: collated images are {type(clean).__name__}, not a tensor (B, C, *S). Give images of one size, or "
                "a collate= that stacks them."
            )
        images, mask = self.corrupt(clean, keys=self._keys(batch, clean))
        return {"clean": clean, "images": images, "mask": mask, **batch}

    def _keys(self, batch: dict[str, Any], clean: Tensor) -> Tensor:
        if self.index is None:
            drawn = draw_keys(clean.shape[0], clean.device, None, rank=0)
            # processes that were seeded alike must not corrupt alike
            return mix(drawn + mix_int(mix_int(self.seed) + self.rank))
        for name, field in (("index", self.index), ("visit", self.visit)):
            if isinstance(field, str) and field not in batch:
                raise ValueError(
                    f"CollateCorrupt: {name}={field!r} is not among the fields of a sample: {', '.join(map(str, batch))}. Have the "
                    f"data set return the number of each {'image' if name == 'index' else 'visit'}, or leave {name} out."
                )
        times, epoch = self._epoch.tolist()
        if epoch == _UNSET:
            raise ValueError(
                "CollateCorrupt: with index=, every epoch would be corrupted in the same way. Call set_epoch(epoch) before each "
                "epoch."
            )
        visit: Any = batch[self.visit] if isinstance(self.visit, str) else self._places(times, len(clean)) if self.visit else 0
        found = keys(self.seed, epoch, batch[self.index], visit=visit, device=clean.device)
        if self.visit is None and not self._warned:
            self._warn_of_repeats(found)
        return found

    def _warn_of_repeats(self, found: Tensor) -> None:
        repeated = len(found) - len(found.unique())
        if repeated:
            self._warned = True
            warnings.warn(
                f"CollateCorrupt: {repeated} of {len(found)} images have an index that occurs earlier in their batch, and are "
                f"corrupted in the same way, except for donors. Pass visit=True to count visits, visit= the field that holds their "
                f"number, or visit=False if that is intended.",
                stacklevel=4,
            )

    def _places(self, times: int, count: int) -> Tensor:
        """(count,) int64, from the rank, the number of the batch and the position in it.

        A DataLoader gives each batch to the next worker in turn.
        """
        batches = self._batches[1] if self._batches[0] == times else 0
        self._batches = times, batches + 1
        worker = get_worker_info()
        number = batches if worker is None else batches * worker.num_workers + worker.id
        return torch.arange(1, count + 1) + (number << 20) + (self.rank << 50)

    def _named(self, batch: Any) -> dict[str, Any]:
        if isinstance(batch, Tensor):
            return {self.image: batch}
        if isinstance(batch, Mapping):
            return dict(batch)
        if isinstance(batch, tuple) and hasattr(batch, "_asdict"):
            return dict(batch._asdict())
        if not isinstance(batch, tuple | list):
            raise TypeError(
                f"CollateCorrupt: collated samples are {type(batch).__name__}. Allowed: a tensor, a dict, a tuple or a list."
            )
        if len(batch) > len(self.fields):
            raise ValueError(
                f"CollateCorrupt: samples have {len(batch)} fields, but fields={self.fields} names {len(self.fields)}. Name them "
                "all, in their order."
            )
        return dict(zip(self.fields, batch, strict=False))

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # does nothing in a worker, where it is shared already; a copy gets an epoch of its own
