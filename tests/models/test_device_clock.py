"""The benchmark's clock tells the device's time from the host's, on a device that is only imagined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from gmml_models.bench.device_clock import DeviceClock, Mark, read


@dataclass
class Imagined:
    """An event that is over at ``at``, milliseconds on a clock that host and device share."""

    stream: ImaginedStream
    at: float

    def passed(self) -> bool:
        return self.at <= self.stream.host

    def until(self, later: Mark) -> float:
        assert isinstance(later, Imagined)
        return later.at - self.at


class ImaginedStream:
    """A host that hands out work and a device that does it in order."""

    def __init__(self) -> None:
        self.host = self.device = 0.0  # until when either is busy

    def now(self) -> float:
        return self.host

    def work(self, milliseconds: float) -> None:
        self.device = max(self.device, self.host) + milliseconds

    sleep = work

    def mark(self) -> Imagined:
        return Imagined(self, max(self.device, self.host))

    def finish(self) -> None:
        self.host = max(self.host, self.device)


def call(stream: ImaginedStream, *, launches: int, host: float, device: float, waits: bool = False) -> Callable[[], None]:
    """A call of so many launches, each of which takes host and device so long."""

    def run() -> None:
        for _ in range(launches):
            stream.host += host
            stream.work(device)
            if waits:
                stream.finish()

    return run


def between_events(stream: ImaginedStream, run: Callable[[], None], sleep: float) -> float:
    """What was published once: one sleep for all calls."""
    stream.finish()
    stream.sleep(sleep)
    start = stream.mark()
    run()
    end = stream.mark()
    stream.finish()
    return start.until(end)


@pytest.mark.parametrize("host", [0.001, 0.02, 0.15, 2.0])
@pytest.mark.parametrize("device", [0.001, 0.03, 1.0])
def test_the_device_s_time_is_read_however_slow_the_host(host: float, device: float) -> None:
    stream = ImaginedStream()
    found = read(call(stream, launches=10, host=host, device=device), stream, 20)
    assert len(found.device) == 20
    assert found.device == pytest.approx([10 * device] * 20)
    assert found.host == pytest.approx(10 * host)
    assert found.late == 0
    assert not found.of_the_host


def test_a_sleep_that_the_host_outlasts_measures_the_host() -> None:
    stream = ImaginedStream()
    run = call(
        stream, launches=13, host=0.15, device=0.0105
    )  # as the call of 64 images from bytes: 1.95 ms of host, 0.137 of device
    assert between_events(stream, run, 1.01) == pytest.approx(1.95 - 1.01 + 0.0105)  # published as 0.978
    assert read(run, stream, 5).device == pytest.approx([13 * 0.0105] * 5)


def test_a_late_reading_does_not_count_and_the_next_sleep_is_longer() -> None:
    stream = ImaginedStream()
    fast, slow = (call(stream, launches=10, host=host, device=0.01) for host in (0.1, 5.0))
    calls = iter([*[fast] * 5, slow, *[fast] * 20])  # three to begin with; then another process has the processor
    found = read(lambda: next(calls)(), stream, 10)
    assert found.late == 1
    assert found.device == pytest.approx([0.1] * 10)
    assert found.host == pytest.approx(1.0)


def test_a_host_that_becomes_slow_for_good_is_caught_up_with() -> None:
    stream = ImaginedStream()
    hosts = iter([*[0.01] * 4, *[0.2] * 100])
    found = read(lambda: call(stream, launches=40, host=next(hosts), device=0.01)(), stream, 10)
    assert found.device == pytest.approx([0.4] * 10)
    assert 0 < found.late < 6


def test_a_call_that_waits_for_the_device_is_told_and_not_slept_before_for_ever() -> None:
    stream = ImaginedStream()
    run = call(stream, launches=10, host=0.2, device=0.3, waits=True)
    clock = DeviceClock(run, stream)
    assert [clock.read().late for _ in range(4)] == [True] * 4
    assert clock.given_up
    before = stream.now()
    assert clock.read().device == pytest.approx(5.0)
    assert stream.now() - before == pytest.approx(5.0)  # without a sleep
    found = read(run, stream, 10)
    assert found.of_the_host
    assert found.late == len(found.device) == 10
