"""A bounded cache of objects that backends prepare for a program."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Generic, TypeVar

from gmml_aug.program import Program

T = TypeVar("T")

_MOST = 256
_HELD: Final[ContextVar[list[object] | None]] = ContextVar("_HELD", default=None)


@contextmanager
def held() -> Iterator[list[object]]:
    """List everything taken from a `Kept` inside this context, for callers that read its memory later, such as a CUDA graph."""
    found: list[object] = []
    token = _HELD.set(found)
    try:
        yield found
    finally:
        _HELD.reset(token)


class Kept(Generic[T]):
    """Caches up to a few hundred results of a function of a program and a hashable key; the oldest one is dropped first.

    A program is identified by its address: hashing its contents would take longer than a small call.
    """

    def __init__(self, make: Callable[..., T]) -> None:
        self._make = make
        self._found: dict[tuple[int, Hashable], tuple[weakref.ref[Program], T]] = {}
        self._lock = threading.Lock()

    def __call__(self, program: Program, *about: Hashable) -> T:
        """``make(program, *about)``, once."""
        key = (id(program), about)
        found = self._found.get(key)
        if found is not None and found[0]() is program:
            made = found[1]
        else:
            made = self._make(program, *about)
            with self._lock:
                if len(self._found) >= _MOST:
                    del self._found[next(iter(self._found))]
                self._found[key] = (weakref.ref(program), made)
        holder = _HELD.get()
        if holder is not None:
            holder.append(made)
        return made
