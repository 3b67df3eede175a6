"""A lock that lets only one process write to the folder of a run; it ends with its process, and names the process that holds it."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import final

from gmml_models.errors import UsageError, shown

LOCK = "lock.json"
# process and folder -> the open file and how many hold it: the first of several that a process closes would end its lock
_HELD: dict[tuple[int, str], list[int]] = {}


@final
class Owner:
    """Holds the lock of a folder until `release`, or until the process ends for whatever reason.

    It is a POSIX record lock: the system releases it when the process ends, and child processes do not inherit it. If the system or
    file system has no such locks, as on Windows, nothing is locked.

    Args:
        folder: exists.

    Raises:
        UsageError: another process holds the lock; the message says which.
        OSError: the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self._holds = False
        self._place = (os.getpid(), os.path.realpath(folder))
        try:
            import fcntl
        except ImportError:
            return
        if self._place not in _HELD:
            handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError) as error:
                other = os.read(handle, 10_000)
                os.close(handle)
                raise UsageError(
                    f"gmml: {folder} is in use: {_owner(other)} is training there. Wait for it, or stop it and run the same "
                    f"command again; or give another --out."
                ) from error
            except OSError:  # no locks here
                os.close(handle)
                return
            told = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(told).encode())
            _HELD[self._place] = [handle, 0]
        _HELD[self._place][1] += 1
        self._holds = True

    def release(self) -> None:
        """Let go. The file is kept, because removing it would let a third process lock another file of the same name."""
        if not self._holds:
            return
        self._holds = False
        held = _HELD[self._place]
        held[1] -= 1
        if held[1] == 0:
            os.close(held[0])
            del _HELD[self._place]

    def __del__(self) -> None:
        """Release the lock even if the run ended with an exception."""
        self.release()


def _owner(held: bytes) -> str:
    try:
        told = json.loads(held)
        return shown(f"process {told['pid']} on {told['host']}, since {told['since']},")
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "another process"
