"""The progress line: steps, loss, images per second, waiting time, time left."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, final

_EVERY, _DRAWN = 30.0, 0.1  # seconds between lines where there is no terminal, and between the states of a bar


@final
class Progress:
    """A bar on a terminal; elsewhere a line after the first step and then every half minute; nothing if ``shown`` is False.

    A run that is resumed says first where it stands.

    Args:
        total: the number of steps of the run.
        done: number of finished steps.
        images: the number of images per step, over all processes.
        shown: False on all processes but the first.

    Attributes:
        due: the time at which to `show` again, on the clock of `time.monotonic`.
    """

    def __init__(self, total: int, done: int, images: int, *, shown: bool) -> None:
        self.total, self.first, self.images = total, done, images
        self.shown = shown
        self.began = time.monotonic()
        self.due = self.began
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if self.shown and 0 < self.first < self.total:
            print(f"resumed: {self.first:,} of {self.total:,} steps were done", file=sys.stderr, flush=True)
        if self.shown and sys.stderr.isatty():
            from rich import progress
            from rich.console import Console

            columns: list[Any] = [
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.fields[words]}"),
                progress.TimeRemainingColumn(elapsed_when_finished=True),
            ]
            self._bar = progress.Progress(*columns, console=Console(stderr=True))
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, completed=self.first, words="")
        return self

    def show(self, step: int, loss: float, waited: float) -> None:
        """Print the progress; call this once the time is ``due``.

        Args:
            step: steps done.
            loss: the loss of the last step.
            waited: seconds spent waiting for data since the start.
        """
        now = time.monotonic()
        self.due = now + (_EVERY if self._bar is None else _DRAWN)
        if not self.shown:
            return
        seconds = max(now - self.began, 1e-9)
        done = step - self.first
        words = f"loss {loss:.4f} · {done * self.images / seconds:.0f} img/s · {waited / seconds:.0%} waiting for data"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, words=words)
        else:
            left = (self.total - step) * seconds / max(done, 1)
            print(f"step {step}/{self.total} · {words} · {clock(left)} left", file=sys.stderr, flush=True)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()


def teller(words: str, *, shown: bool, every: float = 5.0) -> Callable[[int, int], None]:
    """Report the progress of a slow preparation: a line every few seconds with ``words``, the number done and the total.

    Args:
        words: what the command is doing, for the message.
        shown: False on all processes but the first.
        every: the seconds between lines; nothing is printed before the first interval is over.
    """
    told = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal told
        if shown and time.monotonic() - told > every:
            told = time.monotonic()
            print(f"{words}: {done:,} of {of:,}", file=sys.stderr, flush=True)

    return tell


def clock(seconds: float) -> str:
    """Format a duration: 45 s, 3 min, 2 h 05 min, 3 days 4 h."""
    minutes = seconds / 60
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes:.0f} min"
    hours, rest = divmod(round(minutes), 60)
    if hours < 48:
        return f"{hours} h {rest:02d} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"
