"""Measures how long a device takes for a call, and whether the measurement is valid.

Two events on a stream measure the device's work between them and also its waiting: if the host submits work more slowly than the
device completes it, they measure the host. So a call is queued behind a sleep that lasts longer than the host needs to submit it.
If the device has already reached the first event once everything is submitted, the host was late, and the reading is discarded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import torch

_TIMES = 3.0  # the host's part, for chance
_SHORTEST, _LONGEST = 1.0, 200.0  # milliseconds of a sleep
_PATIENCE = 3  # late readings in a row, until it is clear that the call itself waits for the device
_CYCLES = 20_000_000  # of the sleep by which cycles are turned into time


class Mark(Protocol):
    """An event on a stream."""

    def passed(self) -> bool:
        """Return True once the device has reached this event."""

    def until(self, later: Mark) -> float:
        """Return the milliseconds on the device from this event to a later one; both must have passed."""


class Stream(Protocol):
    """The methods of a device that the clock needs."""

    def now(self) -> float:
        """Return the time of the host in milliseconds."""

    def sleep(self, milliseconds: float) -> None:
        """Queue a sleep of this many milliseconds on the device."""

    def mark(self) -> Mark:
        """Record an event after everything that has been queued."""

    def finish(self) -> None:
        """Wait until the device has finished everything that was queued."""


@dataclass(frozen=True)
class CallTime:
    """One call.

    Attributes:
        device: the milliseconds between the events.
        host: the milliseconds that the host needed to submit the work.
        late: True if the device ran out of work meanwhile, so that ``device`` is the host's time.
    """

    device: float
    host: float
    late: bool


class DeviceClock:
    """Times one call, which is run three times at the start.

    Args:
        run: the call; call it once before, so that everything is compiled.
        stream: the device's current stream.
    """

    def __init__(self, run: Callable[[], object], stream: Stream) -> None:
        self._run, self._stream = run, stream
        hosts = []
        for _ in range(3):
            stream.finish()
            begin = stream.now()
            run()
            hosts.append(stream.now() - begin)
        self._sleep = min(max(_TIMES * max(hosts), _SHORTEST), _LONGEST)
        self._late = 0  # readings in a row, from the first on

    @property
    def given_up(self) -> bool:
        """True if no sleep outlasts the host, because the call itself waits for the device."""
        return self._late >= _PATIENCE

    def read(self) -> CallTime:
        """Time one call; if it is late, the next sleep is longer."""
        stream = self._stream
        stream.finish()  # the host waits where the queue is full
        if not self.given_up:
            stream.sleep(self._sleep)
        start, begin = stream.mark(), stream.now()
        self._run()
        end, host = stream.mark(), stream.now() - begin
        late = self.given_up or start.passed()
        stream.finish()
        if late:
            self._late += self._late >= 0
            self._sleep = min(2.0 * self._sleep, _LONGEST)
        else:
            self._late = -1
        return CallTime(start.until(end), host, late)


@dataclass(frozen=True)
class CallTimes:
    """Some calls.

    Attributes:
        device: the milliseconds of every reading that was not late, or of all readings if all were late.
        host: the milliseconds of the fastest submission.
        late: the number of readings that did not count.
        of_the_host: True if no reading counted, so that ``device`` is the host's time.
    """

    device: list[float]
    host: float
    late: int
    of_the_host: bool

    @classmethod
    def of(cls, found: Sequence[CallTime]) -> CallTimes:
        """Summarise at least one reading."""
        counted = [one.device for one in found if not one.late]
        late = len(found) - len(counted)
        return cls(counted or [one.device for one in found], min(one.host for one in found), late, not counted)


def read(run: Callable[[], object], stream: Stream, rounds: int) -> CallTimes:
    """Time a call until the given number of readings count, with at most three times as many attempts."""
    clock, found = DeviceClock(run, stream), list[CallTime]()
    while sum(not one.late for one in found) < rounds and len(found) < (rounds if clock.given_up else 3 * rounds):
        found.append(clock.read())
    return CallTimes.of(found)


class _CudaMark:
    def __init__(self) -> None:
        self.event = torch.cuda.Event(enable_timing=True)
        self.event.record()

    def passed(self) -> bool:
        return bool(self.event.query())

    def until(self, later: Mark) -> float:
        assert isinstance(later, _CudaMark)
        return float(self.event.elapsed_time(later.event))


class CudaStream:
    """The current stream of the current CUDA device."""

    def __init__(self) -> None:
        torch.cuda._sleep(_CYCLES)  # wakes the device
        start = self.mark()
        torch.cuda._sleep(_CYCLES)
        end = self.mark()
        self.finish()
        self._cycles: Final = _CYCLES / start.until(end)  # a millisecond

    def now(self) -> float:
        """Return the time of the host in milliseconds."""
        return time.perf_counter() * 1e3

    def sleep(self, milliseconds: float) -> None:
        """Queue a sleep of this many milliseconds."""
        torch.cuda._sleep(int(milliseconds * self._cycles))

    def mark(self) -> Mark:
        """Record an event after everything that has been queued."""
        return _CudaMark()

    def finish(self) -> None:
        """Wait until the device has finished everything that was queued."""
        torch.cuda.synchronize()
