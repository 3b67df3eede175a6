"""One loop for all trainings: accelerate, accumulation, clipping, skipped steps, checkpoints, what a person sees.

Nothing that happens depends on when a run was stopped: the images of a step and all chance in it follow from (seed, epoch,
step, index), rates from the step alone, everything else is in the checkpoint.
"""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

from gmml_aug.chance import mix_int
from gmml_models.data.loaders import Batch
from gmml_models.data.sampling import Shared, send
from gmml_models.errors import UsageError
from gmml_models.schedule import Schedule
from gmml_models.train import checkpoint
from gmml_models.train.job import Begun, Job, Outcome
from gmml_models.train.optim import clip_gradients, parameter_groups
from gmml_models.train.parallel import distribute
from gmml_models.train.progress import Progress

_HOPELESS = 100  # steps in a row that were not finite
_LOG_EVERY = 10  # steps between rows of steps.csv
_MINUTES = 5.0  # between checkpoints, where no number of steps is given


def train(job: Job) -> Outcome:
    """Train to the end, or until a signal, the clock or a fault stops it; from the newest checkpoint if there is one.

    Raises:
        UsageError: no room for a checkpoint, a checkpoint that is damaged or of another model, a hundred steps in a row that are
            not finite.
    """
    return Training(job).run()


class Training:
    """The state of a loop that is running; `train` and `rehearse` drive it."""

    def __init__(self, job: Job) -> None:
        config, self.job, self.accelerator = job.config, job, job.accelerator
        self.per_epoch = job.feed.steps_per_epoch
        self.total = self.per_epoch * config.epochs
        self.schedule = Schedule(
            steps=self.total,
            warmup=round(config.warmup_epochs * self.per_epoch),
            lr=config.lr * config.batch_size / job.base_batch,
            min_lr=config.min_lr,
            weight_decay=config.weight_decay,
            weight_decay_end=config.weight_decay_end,
        )
        fused = self.accelerator.device.type == "cuda" and not config.fsdp
        self.bare = job.model
        if config.compile:
            job.model.compile()

        def optimiser(model: nn.Module) -> torch.optim.Optimizer:
            return torch.optim.AdamW(parameter_groups(model, job.lr_scale), lr=0.0, betas=config.betas, fused=fused)

        self.model, self.optimizer, self.holding = distribute(self.accelerator, job.model, optimiser, fsdp=config.fsdp)
        self.trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.step = self.skipped = self.in_a_row = self.saved_at = 0
        self.sums: dict[str, float] = {}
        self.signalled = False
        self.began = self.saved_when = time.monotonic()
        self.done = 0  # steps of this call
        self.waited = 0.0

    def run(self) -> Outcome:
        """All steps that are left."""
        config = self.job.config
        self._resume()
        with (
            self._signals(),
            Progress(self.total, self.step, config.batch_size, shown=self.accelerator.is_main_process) as progress,
        ):
            for numbers, stopped in self.steps():
                progress.advance(numbers.get("loss", float("nan")), self.waited)
                if self.step % self.per_epoch == 0:
                    self._end_epoch(self.step // self.per_epoch)
                if stopped or self._due():
                    self._save()
                if stopped:
                    break
            if self.saved_at < self.step:
                self._save()
        seconds = time.monotonic() - self.began
        self.accelerator.wait_for_everyone()
        return Outcome(
            finished=self.step >= self.total,
            steps=self.step,
            skipped=self.skipped,
            history=self.job.record.history(),
            seconds=seconds,
            images_per_second=self.done * config.batch_size / max(seconds, 1e-9),
            waiting=self.waited / max(seconds, 1e-9),
        )

    def steps(self) -> Iterator[tuple[dict[str, float], bool]]:
        """All steps that are left, each as `one` returns it; the batch of the next one is made while a GPU is at work."""
        self.model.train()
        coming = self._batches()
        batches = self._next(coming)
        while batches is not None:
            begun = self._begin(batches)
            batches = self._next(coming, begun) if self.step + 1 < self.total else None
            yield self._end(begun)

    def one(self, batches: Sequence[Batch]) -> tuple[dict[str, float], bool]:
        """One step: forward and backward of every part, then the update, or none if a number is not finite."""
        return self._end(self._begin(batches))

    def _begin(self, batches: Sequence[Batch]) -> Begun:
        """Forward and backward of every part; a GPU is still at it when this returns, so there is time to make the next batch."""
        config = self.job.config
        lr, decay = self.schedule.lr_at(self.step), self.schedule.weight_decay_at(self.step)
        for group in self.optimizer.param_groups:
            group["lr"], group["weight_decay"] = lr * group["lr_scale"], decay if group["decays"] else 0.0
        rank = self.accelerator.process_index
        total: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            torch.manual_seed(mix_int(mix_int(mix_int(config.seed) + self.step) + rank * len(batches) + number) % (1 << 63))
            last = number == len(batches) - 1
            with nullcontext() if last else self.holding():
                with self.accelerator.autocast():
                    loss, parts = self.job.loss(self.model, batch)
                self.accelerator.backward(loss / len(batches))
            for name, part in {"loss": loss, **parts}.items():
                share = part.detach().float() / len(batches)
                total[name] = total[name] + share if name in total else share
        norm = clip_gradients([p.grad for p in self.trained if p.grad is not None], config.clip)
        stops = torch.tensor(float(self._wants_to_stop()))
        shared = self._share([*total.values(), norm, stops])
        return Begun(names=(*total, "grad_norm"), shared=shared, lr=lr, decay=decay)

    def _end(self, begun: Begun) -> tuple[dict[str, float], bool]:
        """The update, or none if a number is not finite; what there is to log, and whether to stop."""
        values, lr, decay = begun.shared.wait(), begun.lr, begun.decay
        numbers = dict(zip(begun.names, values, strict=False))
        if all(map(_finite, values[:-1])):
            self.optimizer.step()
            self.job.after_step(self.schedule.progress(self.step))
            self.in_a_row = 0
            for name, value in numbers.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            self.sums["taken"] = self.sums.get("taken", 0.0) + 1
        else:
            self.job.discard()
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        self.optimizer.zero_grad(set_to_none=True)
        self.step, self.done = self.step + 1, self.done + 1
        if self.in_a_row >= _HOPELESS:
            raise UsageError(
                f"gmml: {_HOPELESS} steps in a row were not finite (loss {numbers['loss']}, gradient norm {numbers['grad_norm']}). "
                "The last checkpoint is whole. Give a lower --lr, or --precision fp32, under another --out."
            )
        if self.step % _LOG_EVERY == 0:
            self.job.record.row("steps", {"step": self.step, **numbers, "lr": lr, "weight_decay": decay, "skipped": self.skipped})
        return numbers, values[-1] > 0

    def _share(self, values: Sequence[Tensor]) -> Shared:
        """Means over all processes: one message, and the only wait of a step."""
        vector = torch.stack([send(value, self.accelerator.device).to(torch.float32) for value in values])
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(vector)
            vector /= self.accelerator.num_processes
        return Shared(vector)

    def _end_epoch(self, epochs: int) -> None:
        self.model.eval()
        with torch.compiler.set_stance("force_eager"):  # to measure takes less time than to compile for it
            extra = self.job.at_epoch(epochs)
        self.model.train()
        taken = max(self.sums.pop("taken", 0.0), 1.0)
        means = {name: value / taken for name, value in self.sums.items()}
        lr, decay = self.schedule.lr_at(self.step - 1), self.schedule.weight_decay_at(self.step - 1)
        seconds = time.monotonic() - self.began
        row = {"epoch": epochs, "step": self.step, **means, **extra, "lr": lr, "weight_decay": decay, "skipped": self.skipped}
        timing = {"images_per_second": self.done * self.job.config.batch_size / seconds, "waiting": self.waited / seconds}
        self.job.record.row("epochs", {**row, **timing})
        self.sums = {}

    def _due(self) -> bool:
        """Is it time for a checkpoint? The clock is asked at the end of an epoch and every hundred steps; all processes agree."""
        every = self.job.config.checkpoint_every
        if every:
            return self.step % every == 0
        if self.step % self.per_epoch and self.step % 100:
            return False
        late = time.monotonic() - self.saved_when > 60 * _MINUTES
        return self._share([torch.tensor(float(late))]).wait()[0] > 0

    def _save(self) -> None:
        if self.step == self.saved_at:
            return
        tensors = checkpoint.gather(self.bare, self.optimizer)
        if self.accelerator.is_main_process:
            about = {"skipped": self.skipped, "in_a_row": self.in_a_row, "sums": self.sums, "facts": self.job.facts}
            try:
                checkpoint.write(self.job.record.checkpoints, self.step, tensors, about, self.job.config.keep)
            except OSError as error:
                last = checkpoint.newest(self.job.record.checkpoints)
                raise UsageError(
                    f"gmml: no checkpoint could be written at step {self.step} ({error}). "
                    + (f"The last good one is {last}. " if last else "There is none yet. ")
                    + "Make room, then give the same command to go on."
                ) from error
        self.accelerator.wait_for_everyone()
        self.saved_at, self.saved_when = self.step, time.monotonic()

    def _resume(self) -> None:
        record = self.job.record
        if self.accelerator.is_main_process:
            checkpoint.clear_remains(record.checkpoints)
        self.accelerator.wait_for_everyone()
        path = checkpoint.newest(record.checkpoints)
        if path is not None:
            about = checkpoint.facts(path)
            told, now = about.get("facts", {}), json.loads(json.dumps(dict(self.job.facts)))
            other = [
                f"{name}: {told.get(name)!r} -> {now.get(name)!r}"
                for name in sorted({*told, *now})
                if told.get(name) != now.get(name)
            ]
            if other:
                raise UsageError(
                    f"gmml: the run in {record.folder} began with other data or another model: {'; '.join(other)}. Give back what "
                    "it began with, or another --out."
                )
            try:
                checkpoint.restore(self.bare, self.optimizer, checkpoint.read(path))
            except (RuntimeError, KeyError, ValueError) as error:
                raise UsageError(
                    f"gmml: the checkpoint {path} does not fit this run ({str(error)[:500]}). It was written by another version or "
                    "another data set; give another --out."
                ) from error
            self.step = self.saved_at = int(about["step"])
            self.skipped, self.in_a_row, self.sums = about["skipped"], about["in_a_row"], about["sums"]
        record.rewind(self.step)

    def _batches(self) -> Iterator[tuple[Batch, ...]]:
        """Those of all steps that are left; one asks for the next epoch's before the last step of an epoch has ended."""
        epoch, first = divmod(self.step, self.per_epoch)
        for number in range(epoch, self.job.config.epochs):
            yield from self.job.feed.epoch(number, first if number == epoch else 0)

    def _next(self, coming: Iterator[tuple[Batch, ...]], begun: Begun | None = None) -> tuple[Batch, ...] | None:
        """The next batch; the time it took counts as waiting, unless a GPU was at work on a step all the while."""
        asked = time.monotonic()
        try:
            return next(coming, None)
        finally:
            if begun is None or begun.shared.there:
                self.waited += time.monotonic() - asked

    def _wants_to_stop(self) -> bool:
        limit = self.job.config.stop_after
        return self.signalled or (limit is not None and time.monotonic() - self.began > 60 * limit)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the run after its step, with a checkpoint; the second as ever."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def note(number: int, frame: object) -> None:
            self.signalled = True
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _finite(value: float) -> bool:
    return value - value == 0.0
