"""What a training is made of, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, final

from torch import Tensor, nn

from gmml_models.data.loaders import Batch, Feed
from gmml_models.data.sampling import Shared
from gmml_models.train.config import TrainConfig
from gmml_models.train.run_folder import RunFolder

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(kw_only=True)
class Job:
    """What a training is made of.

    Attributes:
        config: numbers of the run.
        accelerator: from `make_accelerator`.
        model: holds all that is learnt, and in its state_dict all that a resumed run needs.
        feed: the images.
        record: the folder.
        loss: (wrapped model, batch) -> loss (), and detached () parts by name.
        base_batch: the batch size that ``config.lr`` is meant for.
        lr_scale: factor on the learning rate by parameter name; 1 where it is silent.
        facts: about data and model, in types that JSON has: a checkpoint with others is refused.
        after_step: called with the progress in [0, 1] after each step that was taken.
        discard: called after a step that was left out.
        at_epoch: called with the number of epochs done; numbers to log.
    """

    config: TrainConfig
    accelerator: Accelerator
    model: nn.Module
    feed: Feed
    record: RunFolder
    loss: Callable[[nn.Module, Batch], tuple[Tensor, Mapping[str, Tensor]]]
    base_batch: int = 256
    lr_scale: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    after_step: Callable[[float], None] = lambda progress: None
    discard: Callable[[], None] = lambda: None
    at_epoch: Callable[[int], Mapping[str, float]] = lambda epoch: {}


class Begun(NamedTuple):
    """A step whose gradients are being computed.

    Attributes:
        names: of the shared numbers, but for the last one, which says whether to stop.
        shared: they.
        lr: of this step.
        decay: its weight decay.
    """

    names: tuple[str, ...]
    shared: Shared
    lr: float
    decay: float


@final
@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training went.

    Attributes:
        finished: False if it was stopped, and can go on.
        steps: done in all.
        skipped: of them, left out because a number was not finite.
        history: the rows of ``epochs.csv``.
        seconds: of this call.
        images_per_second: of this call, over all processes.
        waiting: share of this call's time that was spent waiting for data.
    """

    finished: bool
    steps: int
    skipped: int
    history: Sequence[Mapping[str, str]]
    seconds: float
    images_per_second: float
    waiting: float
