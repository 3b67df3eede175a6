"""How much memory a process may still take: on a GPU, on a computer, in a container, or under ``ulimit``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import torch

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int | None:
    """Return how many bytes this process can still allocate on a device; None if unknown.

    On a CPU this is the smallest of three numbers: the memory that the system reports as available (or its total memory, if it
    reports no more than that), the memory left to the process's control groups, such as a container, and the address space left
    to it (``ulimit -v``).
    """
    if device.type == "cuda":
        spare = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own, from earlier work
        return int(torch.cuda.mem_get_info(device)[0]) + spare
    least = min((*_of_the_system(), *_of_groups(), *_of_the_process()), default=None)
    return None if least is None else max(least, 0)


def _of_the_system() -> Iterator[int]:
    try:
        lines = dict(line.split(":", 1) for line in (_PROC / "meminfo").read_text().splitlines())
        yield int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # not Linux
        with suppress(AttributeError, ValueError, OSError):
            yield os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups() -> Iterator[int]:
    """Bytes left in each control group (version 1 or 2) that limits this process; cached files do not count as used."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers and "memory" not in controllers.split(","):
            continue
        top, limit, used, cached = _GROUPS, "memory.max", "memory.current", "inactive_file"
        if controllers:
            top, limit, used, cached = _GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
        group = top / path.strip("/")
        for folder in (one for one in (group, *group.parents) if one.is_relative_to(top)):
            with suppress(OSError, ValueError, KeyError):  # no such group, or "max"
                stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
                yield int((folder / limit).read_text()) - int((folder / used).read_text()) + int(stat[cached])


def _of_the_process() -> Iterator[int]:
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        with suppress(OSError, ValueError):
            yield limit - int((_PROC / "self" / "statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
