"""Follows a pickle without running it: its steps are evaluated on plain data, and its names are looked up in a table.

No name from a file is imported, and no step creates more than it was given, so time and memory are proportional to the length of
the pickle.
"""

from __future__ import annotations

import io
import pickletools
import warnings
from typing import Any

from gmml_models.convert.pickle_calls import (
    STORAGES,
    Name,
    Ordered,
    RefusedError,
    Storage,
    Unread,
    build,
    call,
    is_long,
    named,
    only,
    passed_over,
    plain_key,
    refuse,
)

_STEPS, _TEXT = 500_000, 1 << 16  # a ViT-L with its teacher and optimiser takes 90,000 steps
_LONG = 1000  # texts that are bytes of arrays


class Steps:
    """Follows the pickles of one file; ``storages`` collects the storages that it refers to."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.left = _STEPS
        self.long = 0

    def value(self, stream: io.BytesIO) -> Any:
        """Return the value of the next pickle in the stream, which is then positioned after it.

        Raises:
            RefusedError: the pickle uses a name that is not allowed, or is too large.
            ValueError, TypeError, LookupError, Warning: it is not a pickle written by torch.save.
        """
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # pickletools warns of texts with unknown escapes
            for code, argument, _ in pickletools.genops(stream):
                self.left -= 1
                if self.left < 0:
                    raise RefusedError(f"takes more than {_STEPS:,} steps to unpack, which no network needs. Nothing was run.")
                if isinstance(argument, str | bytes) and len(argument) > _TEXT:
                    argument = Unread(f"a text of {len(argument):,} characters")
                self._step(code.name, argument)
        if self.marks or len(self.stack) != 1:
            raise ValueError("the pickle ends with values left over")
        return self.stack[0]

    def _step(self, code: str, argument: Any) -> None:
        stack = self.stack
        match code:
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINUNICODE" | "SHORT_BINUNICODE" | "SHORT_BINBYTES" | "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(argument)
            case "BINBYTES" | "BYTEARRAY8":  # of protocols that torch.save takes by pickle_protocol=; in its own these are texts
                stack.append(Unread("bytes"))
            case "MARK":
                self.marks.append(stack)
                self.stack = []
            case "TUPLE":
                self.stack = self.marks.pop()
                self.stack.append(tuple(stack))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                last = [stack.pop() for _ in range(int(code[-1]))]
                stack.append(tuple(reversed(last)))
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[code])
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT" | "EMPTY_SET":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_DICT": dict}.get(code, list)())
            case "FROZENSET":
                self.stack = self.marks.pop()
                self.stack.append(stack)
            case "APPEND" | "APPENDS" | "ADDITEMS":
                values = [stack.pop()] if code == "APPEND" else self._marked()
                if not isinstance(self.stack[-1], Unread):
                    only(self.stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = list(reversed([stack.pop(), stack.pop()])) if code == "SETITEM" else self._marked()
                target = {} if isinstance(self.stack[-1], Unread) else only(self.stack[-1], dict, Ordered)
                for key, value in zip(values[::2], values[1::2], strict=True):
                    target[plain_key(key)] = value
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "GLOBAL" | "INST":
                name = named(argument.replace(" ", "."))
                if code == "INST":
                    refuse(name)
                stack.append(name)
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(named(f"{only(module, str)}.{only(name, str)}"))
            case "OBJ":
                refuse(self._marked()[0])
            case "REDUCE" | "NEWOBJ" | "NEWOBJ_EX":
                if code == "NEWOBJ_EX":
                    only(stack.pop(), dict)
                given = only(stack.pop(), tuple)
                stack.append(self._called(stack.pop(), given, made=code != "REDUCE"))
            case "BUILD":
                build(stack[-2], stack.pop())
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise ValueError(f"pickle step {code}")

    def _marked(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def _called(self, what: Any, given: tuple[Any, ...], *, made: bool) -> Any:
        if isinstance(what, Unread):  # a name that is not in the table: an object without a call of its own is harmless
            return what if made else passed_over(what, given)
        name = only(what, Name).text
        if name == "_codecs.encode" and len(given) == 2 and given[1] == "latin1" and is_long(given[0]):
            self.long += 1
            if self.long > _LONG:
                raise RefusedError(f"turns more than {_LONG:,} long texts into bytes (_codecs.encode). None of its code was run.")
            return Unread("bytes")
        return call(name, given)

    def _storage(self, asked: Any) -> Storage | Unread:
        match asked:
            case (
                "module" | "storage",
                Unread() as kind,
                *_,
            ):  # a class with its source, as before torch 1.6; numbers of other kinds
                return kind
            case ("storage", Name(text=kind), str() as key, str(), int() as count, *view) if kind in STORAGES and view in (
                [],
                [None],
            ):
                storage = self.storages.setdefault(key, Storage(STORAGES[kind], key, count))
                if storage.dtype is STORAGES[kind] and storage.count == count >= 0:
                    return storage
        raise ValueError("a tensor's data is described in an unknown way, or in two ways")
