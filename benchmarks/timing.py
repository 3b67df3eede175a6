"""How time is taken here.

Machines are shared and noisy, so contenders are run alternately in one process, on one thread, and compared by their minima; the
median and the spread stand beside them. A contender is called once before its times count.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Hashable, Mapping
from datetime import UTC, datetime
from typing import TypeVar

import torch

from gmml_models.bench.timing import Times, cpu_name

Name = TypeVar("Name", bound=Hashable)


def alternate(
    contenders: Mapping[Name, Callable[[], object]],
    *,
    rounds: int = 15,
    calls: Mapping[Name, int] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[Name, Times]:
    """Time every contender once a round, in turn.

    Args:
        contenders: name -> what to run.
        rounds: how often.
        calls: of each one a round, if more than one: all but the first find in the caches what they have left there themselves.
        clock: in seconds; ``time.thread_time`` leaves out what others on the machine take, for contenders of one thread.
    """
    times: dict[Name, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            for _ in range(1 if calls is None else calls[name]):
                begin = clock()
                run()
                times[name].append((clock() - begin) * 1e3)
    return {name: Times.of(taken) for name, taken in times.items()}


def about_this_machine() -> dict[str, str | int]:
    """What a reader must know to compare: hardware, versions, threads, allocator, date."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "cpu": cpu_name(),
        "threads": torch.get_num_threads(),
        "allocator": "default (glibc malloc, pages go back to the system)",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "system": platform.system(),
    }
