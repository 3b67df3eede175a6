"""The meaning of the names in a pickle: a table of allowed calls, evaluated on plain data, and rules for what is skipped.

The calls that a file may make are listed in `call`, with exactly the arguments that ``torch.save`` writes. Anything else next to a
network, such as an Enum or an object of any package's class, becomes an `Unread`: it is not created, and nothing is imported for
it. A call to a function of Python, torch or NumPy that is not in a table is refused by name, because no network needs it.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import torch

_BYTES = 256
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
STORAGES: Final = {
    "torch.FloatStorage": torch.float32, "torch.DoubleStorage": torch.float64, "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16, "torch.LongStorage": torch.int64, "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16, "torch.CharStorage": torch.int8, "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool, "torch.ComplexFloatStorage": torch.complex64, "torch.ComplexDoubleStorage": torch.complex128,
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
    "_codecs.encode", "numpy.dtype", "numpy._core.multiarray.scalar", "collections.defaultdict",
    "torch._tensor._rebuild_from_type_v2",
})  # fmt: skip
_DTYPES: Final = frozenset(str(value) for value in vars(torch).values() if isinstance(value, torch.dtype))
_PASSED: Final = frozenset({  # calls that make data and nothing else: what they make is passed over
    "numpy._core.multiarray._reconstruct", "numpy.core.multiarray._reconstruct", "numpy._core.numeric._frombuffer",
    "numpy.core.numeric._frombuffer", "collections.Counter", "collections.deque", "copy_reg._reconstructor",
    "copyreg._reconstructor", "datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta", "datetime.timezone",
    "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "builtins.slice", "builtins.range", "builtins.complex",
    "__builtin__.slice", "__builtin__.complex", "builtins.bytes",
    "__builtin__.bytes", "builtins.bytearray", "__builtin__.bytearray", "builtins.iter", "__builtin__.iter",
    "torch.serialization._get_layout", "re._compile", "types.SimpleNamespace", "http.HTTPStatus", "signal.Signals",
    "pathlib.PurePosixPath", "pathlib.PureWindowsPath", "operator.or_", "_operator.or_",
    "ipaddress.IPv4Address", "ipaddress.IPv6Address", "itertools.count", "itertools.cycle", "itertools.repeat",
})  # fmt: skip
_PASSED_FROM: Final = ("torch._utils._rebuild_", "numpy.random.")
_BUILTINS: Final = ("builtins", "__builtin__", "exceptions")  # the last two: as Python 2 calls them, and torch.save
_OF_PYTHON: Final = sys.stdlib_module_names | set(_BUILTINS) | {"copy_reg", "commands", "distutils", "imp", "pipes", "popen2"}
_OF_A_NAME: Final = ("builtins.getattr", "__builtin__.getattr", "functools.partial")
_ALLOWED: Final = _CALLS | _DTYPES | frozenset(STORAGES)


@dataclass(eq=False, slots=True)
class Unread:
    """Stands for something skipped that is neither plain data nor a tensor.

    Attributes:
        text: a few words about the skipped object.
    """

    text: str

    def __str__(self) -> str:
        return f"{self.text} (not read)"


class RefusedError(Exception):
    """The reason, as the end of a sentence that begins with the file's name."""


@dataclass(eq=False, slots=True)
class Name:
    """An allowed name: a function or class that may be called, or a dtype."""

    text: str


@dataclass(eq=False, slots=True)
class Namespace:
    """An argparse.Namespace before its content is extracted."""

    state: dict[Any, Any] | None = None


@dataclass(eq=False, slots=True)
class Number:
    """A numpy dtype, which says how the bytes of a scalar are read."""

    code: str


@dataclass(eq=False, slots=True)
class Storage:
    """The storage of tensors, not read yet."""

    dtype: torch.dtype
    key: str
    count: int


@dataclass(eq=False, slots=True)
class Strided:
    """A tensor over a storage, not checked yet."""

    storage: Storage
    offset: int
    size: tuple[Any, ...]
    stride: tuple[Any, ...]
    lazily: tuple[str, ...] = ()  # "neg", "conj": what torch left undone when it saved


class Ordered(dict[Any, Any]):
    """An OrderedDict, whose attributes are dropped."""


def only(value: Any, *kinds: type) -> Any:
    """Return the value if its type is exactly one of these; otherwise raise TypeError."""
    if type(value) not in kinds:
        raise TypeError(f"{type(value).__name__} instead of {kinds[0].__name__}")
    return value


def named(asked: str) -> Name | Unread:
    """Look up a name in a file: one from the table, or an `Unread` that is skipped as long as it is not called."""
    name = _SAME.get(asked, asked)
    return Name(name) if name in _ALLOWED else Unread(asked[:200])


def is_passed(name: str) -> bool:
    """True if a call to a name that is in no table is skipped: it makes data, or an object that only its author's code knows.

    Of Python itself only exceptions are skipped; of torch and NumPy only classes, recognised by the capital letter.
    """
    if name in _PASSED or name.startswith(_PASSED_FROM):
        return True
    module, _, last = name.rpartition(".")
    is_class = last.lstrip("_")[:1].isupper()
    match module.partition(".")[0]:
        case "" | "torch" | "numpy":
            return bool(module) and is_class
        case root if root in _OF_PYTHON:
            return module in _BUILTINS and is_class
    return True


def passed_over(what: Unread, given: tuple[Any, ...]) -> Unread:
    """Return a stand-in for the result of a call to a name that is in no table.

    Args:
        what: the name of the function or class that is called.
        given: the arguments of the call.

    Raises:
        RefusedError: the call is to a function that must not be skipped.
    """
    if what.text in _OF_A_NAME:  # a class within a class, a method, a call that is prepared: as good as the name that it is given
        match given:
            case (Unread(text=name), *rest) if is_passed(name):
                inner = rest[0] if what.text != "functools.partial" and rest and isinstance(rest[0], str) else ""
                return Unread(f"{name}.{inner}".rstrip(".")[:200])
        refuse(what)
    return what if is_passed(what.text) else refuse(what)


def refuse(what: Any) -> NoReturn:
    """Refuse to call a function."""
    called = what.text if isinstance(what, Name | Unread) else type(what).__name__
    raise RefusedError(
        f"asks to call {called!r}, which makes neither plain data nor a tensor. None of its code was run. Do not load "
        "this file in another way unless you trust whoever made it; if you do, save only its networks: "
        "torch.save(model.state_dict(), path)."
    )


def plain_key(key: Any) -> Any:
    """Return a key that is cheap and safe to hash; any other key is replaced by an `Unread`."""
    if isinstance(key, str | float | Unread) or key is None or (isinstance(key, int) and abs(key) < 1 << 31):
        return key
    return Unread(f"a key of type {type(key).__name__}")


def is_long(text: Any) -> bool:
    """True if a text is long data, such as the bytes of an array, rather than a short value."""
    return isinstance(text, Unread) or (isinstance(text, str) and len(text) > _BYTES)


def call(name: str, given: tuple[Any, ...]) -> Any:
    """Call an allowed name with exactly the arguments that torch.save writes; the result is never larger than these."""
    match name, given:
        case "torch._utils._rebuild_tensor_v2", (
            Storage() as storage,
            int() as offset,
            tuple() as size,
            tuple() as stride,
            bool(),
            Ordered(),
            *more,
        ) if not more or (len(more) == 1 and isinstance(more[0], dict)):
            bits = more[0] if more else {}
            return Strided(storage, offset, size, stride, tuple(bit for bit in ("conj", "neg") if bits.get(bit) is True))
        case "torch._tensor._rebuild_from_type_v2", (Name(text=function), Name() | Unread(), tuple() as given, _):
            return call(function, given)
        case "collections.defaultdict", ():
            return {}
        case "collections.defaultdict", (Name() | Unread() | None,):
            return {}
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
        case "numpy.dtype", (str() as code, bool(), bool()):
            return Number(code)
        case "numpy._core.multiarray.scalar", (Number() as number, bytes() as raw) if number.code in _NUMBERS:
            return struct.unpack("<" + _NUMBERS[number.code], raw)[0]
        case "numpy._core.multiarray.scalar", (Number() as number, str() | bytes() | Unread()):
            return Unread(f"a number of numpy.dtype {number.code[:20]!r}")
    raise ValueError(f"{name} with arguments other than those that torch.save writes")


def build(target: Any, state: Any) -> None:
    """Carry out the pickle step that sets an object's state."""
    match target, state:
        case Namespace(state=None), dict():
            target.state = state
        case Number(), tuple():
            pass
        case Ordered(), dict():
            pass  # attributes such as the versions of modules
        case Unread(), _:
            pass
        case _:
            raise ValueError(f"a state for {type(target).__name__.strip('_')}")
