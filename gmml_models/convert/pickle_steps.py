"""Follows a pickle without running it: its steps are worked out on plain data, its names are words in a table.

What a file may call is written out in `_call`, with exactly the arguments that ``torch.save`` gives it. Nothing is imported by a
name from a file, and no step makes more than it was given, so that the time and memory are those of the pickle's length.
"""

from __future__ import annotations

import io
import pickletools
import struct
import warnings
from dataclasses import dataclass
from typing import Any, Final

import torch

_STEPS, _TEXT, _BYTES = 500_000, 1 << 16, 256  # a ViT-L with its teacher and optimiser takes 90,000 steps
_NUMBERS = {
    "f2": "e",
    "f4": "f",
    "f8": "d",
    "i1": "b",
    "i2": "h",
    "i4": "i",
    "i8": "q",
    "u1": "B",
    "u2": "H",
    "u4": "I",
    "u8": "Q",
    "b1": "?",
}
_STORAGES: Final = {
    "torch.FloatStorage": torch.float32, "torch.DoubleStorage": torch.float64, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}  # fmt: skip
_SAME: Final = {  # other names of one thing: Python 2's, older numpy's, newer pathlib's
    "__builtin__.set": "builtins.set", "__builtin__.frozenset": "builtins.frozenset",
    "numpy.core.multiarray.scalar": "numpy._core.multiarray.scalar",
    "pathlib._local.PosixPath": "pathlib.PosixPath", "pathlib._local.WindowsPath": "pathlib.WindowsPath",
}  # fmt: skip
_CALLS: Final = frozenset({
    "collections.OrderedDict", "argparse.Namespace", "builtins.set", "builtins.frozenset",
    "pathlib.PosixPath", "pathlib.WindowsPath", "torch.Size", "torch.device",
    "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "_codecs.encode", "numpy.dtype", "numpy._core.multiarray.scalar",
})  # fmt: skip
_DTYPES: Final = frozenset(str(getattr(torch, name)) for name in ("float16", "bfloat16", "float32", "float64", "int32", "int64"))
_ALLOWED: Final = _CALLS | _DTYPES | frozenset(_STORAGES)


class RefusedError(Exception):
    """Why, as the end of a sentence that begins with the file's name."""


@dataclass(eq=False, slots=True)
class Name:
    """An allowed name: what may be called, or a dtype."""

    text: str


@dataclass(eq=False, slots=True)
class Namespace:
    """An argparse.Namespace before its content is taken out."""

    state: dict[Any, Any] | None = None


@dataclass(eq=False, slots=True)
class Number:
    """A numpy dtype: how a scalar's bytes are read."""

    code: str


@dataclass(eq=False, slots=True)
class Storage:
    """The numbers under tensors, not read yet."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False, slots=True)
class Strided:
    """A tensor on a storage, not checked yet."""

    storage: Storage
    offset: int
    size: tuple[Any, ...]
    stride: tuple[Any, ...]


class Ordered(dict[Any, Any]):
    """An OrderedDict, whose attributes are left behind."""


class Steps:
    """Follows the pickles of one file; ``storages`` are those that were asked for."""

    def __init__(self) -> None:
        self.storages: dict[str, Storage] = {}
        self.left = _STEPS

    def value(self, stream: io.BytesIO) -> Any:
        """What the next pickle of the stream makes; the stream is then behind it.

        Raises:
            RefusedError: it asks for a name that is not allowed, or for too much.
            ValueError, TypeError, LookupError, Warning: it is no pickle that torch.save writes.
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
                    raise RefusedError(f"holds a text of {len(argument):,} characters ({_TEXT:,} are allowed). Nothing was run.")
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
            case "EMPTY_TUPLE" | "EMPTY_LIST" | "EMPTY_DICT":
                stack.append({"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}[code]())
            case "APPEND" | "APPENDS":
                values = [stack.pop()] if code == "APPEND" else self._marked()
                only(self.stack[-1], list).extend(values)
            case "SETITEM" | "SETITEMS":
                values = list(reversed([stack.pop(), stack.pop()])) if code == "SETITEM" else self._marked()
                target = only(self.stack[-1], dict, Ordered)
                for key, value in zip(values[::2], values[1::2], strict=True):
                    if not (isinstance(key, str) or (isinstance(key, int) and abs(key) < 1 << 31)):  # cheap and safe to hash
                        raise ValueError(f"a dict with a key of type {type(key).__name__}")
                    target[key] = value
            case "BINPERSID":
                stack.append(self._storage(stack.pop()))
            case "GLOBAL" | "INST":
                stack.append(_allowed(argument.replace(" ", ".")))
                if code == "INST":
                    raise ValueError("pickle step INST")
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(_allowed(f"{only(module, str)}.{only(name, str)}"))
            case "REDUCE" | "NEWOBJ":
                given = only(stack.pop(), tuple)
                stack.append(_call(only(stack.pop(), Name).text, given))
            case "BUILD":
                _build(stack[-2], stack.pop())
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                raise ValueError(f"pickle step {code}")

    def _marked(self) -> list[Any]:
        values, self.stack = self.stack, self.marks.pop()
        return values

    def _storage(self, asked: Any) -> Storage:
        match asked:
            case ("storage", Name(text=kind), str() as key, str(), int() as count, *view) if kind in _STORAGES and view in (
                [],
                [None],
            ):
                storage = self.storages.setdefault(key, Storage(_STORAGES[kind], key, count))
                if storage.dtype is _STORAGES[kind] and storage.count == count >= 0:
                    return storage
        raise ValueError("a tensor's data is described in another way, or in two")


def only(value: Any, *kinds: type) -> Any:
    """The value, if it is of exactly one of these types."""
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} where {kinds[0].__name__} belongs")
    return value


def _allowed(asked: str) -> Name:
    name = _SAME.get(asked, asked)
    if name not in _ALLOWED:
        raise RefusedError(
            f"asks for {asked[:200]!r}, which is neither plain data nor a tensor. Nothing of it was run. Do not load this file in "
            "another way unless you trust whoever made it."
        )
    return Name(name)


def _call(name: str, given: tuple[Any, ...]) -> Any:
    """What an allowed name gives for exactly the arguments that torch.save writes; results are never larger than these."""
    match name, given:
        case "torch._utils._rebuild_tensor_v2", (
            Storage() as storage,
            int() as offset,
            tuple() as size,
            tuple() as stride,
            bool(),
            Ordered(),
            *_,
        ):
            return Strided(storage, offset, size, stride)
        case "torch._utils._rebuild_parameter", (Strided() as tensor, bool(), Ordered()):
            return tensor
        case "collections.OrderedDict", ():
            return Ordered()
        case "argparse.Namespace", ():
            return Namespace()
        case "builtins.set" | "builtins.frozenset", (list() as values,):
            return values
        case "torch.Size", (tuple() as size,):
            return size
        case "torch.device", (str() as kind, *index) if len(kind) <= 16 and (not index or type(index[0]) is int):
            return ":".join(map(str, (kind, *index[:1])))
        case "pathlib.PosixPath" | "pathlib.WindowsPath", parts if sum(len(only(part, str)) + 1 for part in parts) <= _BYTES * 16:
            return "/".join(parts).replace("//", "/", 1)
        case "_codecs.encode", (str() as text, "latin1") if len(text) <= _BYTES:
            return text.encode("latin1")
        case "numpy.dtype", (str() as code, bool(), bool()) if code in _NUMBERS:
            return Number(code)
        case "numpy._core.multiarray.scalar", (Number() as number, bytes() as raw):
            return struct.unpack("<" + _NUMBERS[number.code], raw)[0]
    raise ValueError(f"{name} with other arguments than torch.save writes")


def _build(target: Any, state: Any) -> None:
    match target, state:
        case Namespace(state=None), dict():
            target.state = state
        case Number(), (3, "<" | "|", None, None, None, int(), int(), int()):
            pass
        case Ordered(), dict():
            pass  # attributes such as the versions of modules
        case _:
            raise ValueError(f"a state for {type(target).__name__.strip('_')}")
