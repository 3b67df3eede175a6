"""Files that no loader should fall for, and mutations of good ones. Everything is small, and harmless where it is not loaded."""

from __future__ import annotations

import argparse
import functools
import io
import operator
import os
import pickle
import pickletools
import random
import runpy
import struct
import subprocess
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save as safetensors_bytes

_FLOATS = "torch FloatStorage"
MAGIC = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]


class Case(NamedTuple):
    """A file, and words of which one must stand in the error."""

    content: bytes
    words: Sequence[str]


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *given: Any, state: Any = None) -> None:
        self.function, self.given, self.state = function, given, state

    def __reduce__(self) -> Any:
        return (self.function, self.given) if self.state is None else (self.function, self.given, self.state)


def code(text: str) -> bytes:
    """A text as a pickle step."""
    raw = text.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    """A number as a pickle step."""
    raw = pickle.encode_long(value)
    return b"\x8a" + bytes([len(raw)]) + raw


def name(text: str) -> bytes:
    """A module and a name in it, as the step that imports it."""
    return b"c" + text.replace(" ", "\n").encode() + b"\n"


def storage(key: str = "0", count: int = 4, kind: str = _FLOATS) -> bytes:
    """The numbers of a tensor."""
    return b"(" + code("storage") + name(kind) + code(key) + code("cpu") + number(count) + b"tQ"


def tensor(size: Sequence[int] = (4,), stride: Sequence[int] = (1,), offset: int = 0, under: bytes | None = None) -> bytes:
    """A tensor of four numbers, or what is called one."""
    sizes, strides = (b"(" + b"".join(map(number, numbers)) + b"t" for numbers in (size, stride))
    hooks = name("collections OrderedDict") + b")R"
    under = storage() if under is None else under
    return name("torch._utils _rebuild_tensor_v2") + b"(" + under + number(offset) + sizes + strides + b"\x89" + hooks + b"tR"


def program(*steps: bytes, key: str = "SiT_model") -> bytes:
    """A pickle of a dict with one value that the steps make."""
    return b"\x80\x02}" + code(key) + b"".join(steps) + b"s."


def archive(content: bytes, *, numbers: Mapping[str, bytes] | None = None, more: Mapping[str, bytes] | None = None) -> bytes:
    """The container of torch.save, with right checksums."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", content)
        file.writestr("a/byteorder", b"little")
        for key, raw in ({"0": bytes(16)} if numbers is None else numbers).items():
            file.writestr(f"a/data/{key}", raw)
        for key, raw in (more or {}).items():
            file.writestr(key, raw)
    return buffer.getvalue()


def legacy(content: bytes, keys: Sequence[str] = ("0",), tail: bytes = struct.pack("<q", 4) + bytes(16)) -> bytes:
    """The container of torch before 1.6."""
    return b"".join(pickle.dumps(each, 2) for each in MAGIC) + content + pickle.dumps(list(keys), 2) + tail


def saved(value: Any, *, old: bool = False) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def running(canary: Path) -> dict[str, Case]:
    """Files that run something, in an ordinary unpickler; whatever runs makes the canary."""
    touch = f"touch '{canary}'"
    line = f"open({str(canary)!r}, 'w').close()"
    hub = canary.parent / "hub"
    hub.mkdir(exist_ok=True)
    (hub / "hubconf.py").write_text(f"def entry():\n    {line}\n")
    script = canary.parent / "script.py"
    script.write_text(line + "\n")
    calls: dict[str, tuple[Any, str]] = {
        "os.system": (Calls(os.system, touch), f"{os.system.__module__}.system"),
        "eval": (Calls(eval, line), "eval"),
        "exec": (Calls(exec, line), "exec"),
        "popen": (Calls(subprocess.Popen, ["touch", str(canary)]), "Popen"),
        "torch.hub": (Calls(torch.hub.load, str(hub), "entry"), "torch.hub.load"),
        "torch.hub by partial": (Calls(functools.partial(torch.hub.load, str(hub), "entry", source="local")), "functools.partial"),
        "runpy": (Calls(runpy.run_path, str(script)), "runpy"),
        "getattr": (Calls(getattr, Path, "touch"), "getattr"),
        "partial": (Calls(functools.partial, os.system, touch), "functools.partial"),
        "methodcaller": (Calls(operator.methodcaller, "touch"), "methodcaller"),
        "storage bytes": (Calls(torch.storage._load_from_bytes, saved({})), "_load_from_bytes"),
        "namespace": (argparse.Namespace(lr=Calls(os.system, touch)), "system"),
        "setstate": (Calls(argparse.Namespace, state={"__setstate__": Calls(os.system, touch)}), "system"),
    }
    cases: dict[str, Case] = {}
    for what, (value, word) in calls.items():
        cases[f"{what}, zip"] = Case(saved({"SiT_model": {}, "args": value}), [word])
        cases[f"{what}, old format"] = Case(saved({"SiT_model": {}, "args": value}, old=True), [word])
        cases[f"{what}, first"] = Case(saved(value), [word])
    for protocol in range(6):
        cases[f"os.system, bare, protocol {protocol}"] = Case(
            pickle.dumps(Calls(os.system, touch), protocol), ["system", "not what"]
        )
    system = name("posix system") + code(touch) + b"\x85R"
    for where, content in {
        "in a tensor": program(tensor(under=system)),
        "as a storage's kind": program(tensor(under=b"(" + code("storage") + system + code("0") + code("cpu") + number(4) + b"tQ")),
        "as a storage's key": program(
            tensor(under=b"(" + code("storage") + name(_FLOATS) + system + code("cpu") + number(4) + b"tQ")
        ),
        "as hooks": program(name("torch._utils _rebuild_parameter") + b"(" + tensor() + b"\x89" + system + b"tR"),
        "by inst": program(b"(" + code(touch) + b"iposix\nsystem\n"),
        "by stack": program(code("posix") + code("system") + b"\x93" + code(touch) + b"\x85R"),
        "by a spaced name": program(b"c" + b"posix system\nx\n" + code(touch) + b"\x85R"),
        "by obj": program(b"(" + name("posix system") + code(touch) + b"o"),
        "after the end": b"\x80\x02}." + system + b".",
        "thrown away": b"\x80\x02" + system + b"0}.",
        "for what is passed over": program(name("mine Stage") + b"(" + system + b"tR"),
        "in the state of what is passed over": program(name("mine Stage") + b")R}" + code("a") + system + b"sb"),
        "by a name of what is passed over": program(
            name("builtins getattr") + name("posix system") + code("__call__") + b"\x86R" + code(touch) + b"\x85R"
        ),
    }.items():
        end = where == "after the end"
        words = ["builtins.getattr" if "a name of" in where else "posix.system"]
        cases[f"call {where}, zip"] = Case(archive(content), ["holds", "missing", "no 'SiT"] if end else words)
        if not end:
            cases[f"call {where}, old format"] = Case(legacy(content), words)
    return cases


def growing() -> dict[str, Case]:
    """Files that ask for much: time, memory, depth."""
    many = 100_000
    laughs = b"](NNe" + b"".join(b"q" + bytes([n]) + b"](" + (b"h" + bytes([n])) * 10 + b"e\x86" for n in range(40))
    encoded = name("_codecs encode") + b"q\x00" + code("a" * 60_000) + b"q\x01" + code("latin1") + b"q\x02"
    paths = name("pathlib PosixPath") + b"q\x00(" + (code("a" * 60_000) + b"q\x01") + b"h\x01" * 1000 + b"tq\x02"
    sizes = b"(" + b"K\x01" * many + b"tq\x05"
    keyed = b"}(" + b"".join(number(n * (2**61 - 1)) + b"N" for n in range(50_000)) + b"u"
    tower = b")" + b"\x85" * 100_000
    wide = (
        name("torch._utils _rebuild_tensor_v2")
        + b"("
        + storage()
        + b"K\x00h\x05h\x05\x89"
        + name("collections OrderedDict")
        + b")RtR"
    )
    alias = program(b"](" + tensor((25_000,), under=storage(count=25_000)) * 500 + b"e")
    cases = {
        "ten GB in sixteen bytes": (program(tensor((50_000, 50_000), (0, 0))), ["shape"]),
        "a storage larger than its entry": (program(tensor((4,), (1,), under=storage(count=1 << 40))), ["declared"]),
        "beyond the end": (program(tensor((4,), (1,), 1)), ["shape"]),
        "before the start": (program(tensor((4,), (1,), -1)), ["shape"]),
        "negative strides": (program(tensor((4,), (-1,), 3)), ["shape"]),
        "huge sizes of nothing": (program(tensor((1 << 62, 1 << 62, 0), (1, 1, 1))), ["not what"]),
        "huge size": (program(tensor((1 << 200,), (0,))), ["shape"]),
        "many axes": (program(tensor((1,) * 64, (1,) * 64)), ["shape"]),
        "very many axes": (program(b"](" + sizes + wide * 2000 + b"e"), ["shape"]),
        "one storage in two forms": (program(b"](" + tensor() + tensor(under=storage(kind="torch LongStorage")) + b"e"), ["two"]),
        "billion laughs": (program(laughs), ["unfold"]),
        "deep lists": (program(b"]" * 100_000 + b"a" * 99_999), ["nested"]),
        "deep dicts": (program((b"}" + code("a")) * 50_000 + b"N" + b"s" * 50_000), ["nested"]),
        "deep tuple": (program(tower), ["nested"]),
        "deep tuple as a key": (program(b"}" + tower + b"Ns"), ["key"]),
        "deep tuple compared": (program(name("_codecs encode") + code("a") + tower + b"\x86R"), ["_codecs.encode"]),
        "a list in itself": (program(b"]q\x00h\x00a"), ["themselves"]),
        "a dict in itself": (program(b"}q\x00" + code("a") + b"h\x00s"), ["themselves"]),
        "keys of one hash": (program(keyed), ["key"]),
        "a list as a key": (program(b"}]Ns"), ["key"]),
        "a large memo": (program(b"N" + b"".join(b"r" + struct.pack("<I", n * 7151) for n in range(600_000))), ["steps"]),
        "many marks": (program(b"(" * 600_000), ["steps"]),
        "many steps": (program(b"N" + b"N0" * 600_000), ["POP", "steps"]),
        "a long text": (program(code("a" * 2_000_000)), ["text"]),
        "a large pickle": (program(code("a" * 9_000_000)), ["8,388,608"]),
        "a text that is announced": (program(b"X" + struct.pack("<I", 0xFFFFFFFF)), ["not what"]),
        "bytes that are announced": (program(b"\x8e" + struct.pack("<Q", 1 << 60)), ["not what"]),
        "a long number": (program(b"L" + b"9" * 1_000_000 + b"L\n"), ["not what"]),
        "a text encoded often": (program(encoded + b"](" + b"h\x00h\x01h\x02\x86R" * 10_000 + b"e"), ["_codecs.encode"]),
        "an encoding of its choice": (
            program(name("_codecs encode") + code("a" * 200) + code("idna") + b"\x86R"),
            ["_codecs.encode"],
        ),
        "a path of many parts": (program(paths + b"](" + b"h\x00h\x02R" * 10_000 + b"e"), ["PosixPath", "not what"]),
        "an ordered dict of pairs": (
            program(name("collections OrderedDict") + b"](" + b"](K\x01K\x02ee\x85R"),
            ["not what", "OrderedDict"],
        ),
        "a bytearray": (program(name("builtins bytearray") + number(1 << 40) + b"\x85R"), ["builtins.bytearray"]),
        "a tensor class": (program(name("torch FloatTensor") + number(1 << 40) + b"\x85R"), ["torch.FloatTensor"]),
        "an array": (program(name("numpy.core.multiarray _reconstruct") + b")R"), ["_reconstruct"]),
        "an object scalar": (
            program(
                name("numpy.core.multiarray scalar") + name("numpy dtype") + code("O") + b"\x89\x88\x87R" + code("a" * 8) + b"\x86R"
            ),
            ["numpy.dtype"],
        ),
        "a state of two": (program(name("argparse Namespace") + b")\x81N}\x86b"), ["state"]),
        "two states": (program(name("argparse Namespace") + b")\x81}b}b"), ["state"]),
        "a state for a name": (program(name("argparse Namespace") + b"}b"), ["state"]),
        "a state for a tensor": (program(tensor() + b"}b"), ["state"]),
        "an empty stack": (program(b"sssss"), ["not what"]),
        "no end": (b"\x80\x02}", ["not what"]),
        "a memo never filled": (program(b"h\x07"), ["not what"]),
        "an unknown step": (program(b"\xff"), ["not what"]),
        "values left over": (b"\x80\x02NN}.", ["left over"]),
        "a list": (b"\x80\x02].", ["list"]),
    }
    found = {}
    for what, (content, words) in cases.items():
        found[f"{what}, zip"] = Case(archive(content), words)
        if what not in ("a storage larger than its entry", "a large memo", "many marks", "many steps"):
            old = legacy(content) if b"storage" in content else legacy(content, (), b"")
            found[f"{what}, old format"] = Case(old, [*words, "8388", "not as long"])
    found["a storage larger than the file, old format"] = Case(
        legacy(program(tensor(under=storage(count=1 << 40))), tail=struct.pack("<q", 1 << 40) + bytes(16)), ["cut short"]
    )
    found["one storage in many tensors, zip"] = Case(archive(alias, numbers={"0": bytes(100_000)}), ["share"])
    found["one storage in many tensors, old format"] = Case(
        legacy(alias, tail=struct.pack("<q", 25_000) + bytes(100_000)), ["share"]
    )
    return found


def containers() -> dict[str, Case]:
    """Zip archives that lie, and what is not a checkpoint at all."""
    good = archive(program(tensor()))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a/data.pkl", program(tensor()))
        file.writestr("a/data/0", bytes(100_000_000))
    bomb = packed.getvalue()
    lying = bytearray(bomb)  # calls itself stored
    for at in (lying.rfind(b"PK\x01\x02") + 10, lying.find(b"PK\x01\x02") + 10):
        lying[at : at + 2] = b"\0\0"
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file.writestr("a/data.pkl", program(tensor()))
        file.writestr("a/data.pkl", program(name("posix system") + code("true") + b"\x85R"))
    hidden = bytearray(good)  # encrypted, it says
    hidden[hidden.find(b"PK\x01\x02") + 8] |= 1
    far = bytearray(good)
    far[far.rfind(b"PK\x01\x02") + 42 : far.rfind(b"PK\x01\x02") + 46] = struct.pack("<I", 1 << 31)
    index = bytearray(good)
    index[-10:-6] = struct.pack("<I", 1 << 30)
    damaged = good.replace(code("SiT_model"), code("SiT_m0del"), 1)
    overlap = _overlapping()
    table = io.BytesIO()
    with tarfile.open(fileobj=table, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("storages"))
    crowd = io.BytesIO()
    with zipfile.ZipFile(crowd, "w") as file:
        for n in range(3000):
            file.writestr(f"b{n}", b"")
    weights = safetensors_bytes({"a": torch.zeros(4)})
    found = {
        "zip bomb": (bomb, ["compressed"]),
        "zip bomb that calls itself stored": (bytes(lying), ["compressed", "zip"]),
        "overlapping entries": (overlap, ["overlap"]),
        "a name twice": (twice.getvalue(), ["overlap"]),
        "encrypted": (bytes(hidden), ["compressed"]),
        "an entry far away": (bytes(far), ["zip", "not what"]),
        "an index larger than the file": (bytes(index), ["zip"]),
        "a byte changed": (damaged, ["checksum"]),
        "dots": (archive(program(tensor()), more={"a/../../evil": b""}), ["unsafe"]),
        "a name from the root": (archive(program(tensor()), more={"/etc/evil": b""}), ["unsafe"]),
        "backslashes": (archive(program(tensor()), more={"a\\..\\evil": b""}), ["unsafe"]),
        "two checkpoints": (archive(program(tensor()), more={"b/data.pkl": b""}), ["data.pkl"]),
        "no checkpoint": (crowd.getvalue(), ["data.pkl"]),
        "TorchScript": (archive(program(tensor()), more={"a/constants.pkl": b""}), ["TorchScript"]),
        "the other byte order": (archive(program(tensor())).replace(b"little", b"biggie"), ["checksum", "big-endian"]),
        "no numbers": (archive(program(tensor()), numbers={}), ["not what"]),
        "short numbers": (archive(program(tensor()), numbers={"0": bytes(12)}), ["declared"]),
        "an empty zip": (b"PK\x05\x06" + bytes(18), ["not what"]),
        "PK and nothing": (b"PK", ["zip", "not what"]),
        "old format, other order": (legacy(b"").replace(b"\x88X", b"\x89X", 1), ["big-endian"]),
        "old format, other keys": (legacy(program(tensor()), ["1"]), ["list of tensors"]),
        "old format, keys of odd types": (legacy(program(tensor()), [3]), ["not what"]),  # type: ignore[list-item]
        "old format, a key twice": (legacy(program(tensor()), ["0", "0"]), ["list of tensors"]),
        "old format, other count": (legacy(program(tensor()), tail=struct.pack("<q", 5) + bytes(20)), ["declared"]),
        "old format, negative count": (legacy(program(tensor(under=storage(count=-1)))), ["not what"]),
        "old format, cut": (legacy(program(tensor()))[:-1], ["cut short"]),
        "old format, header only": (legacy(b"")[:60], ["not what"]),
        "a pickle of a dict": (pickle.dumps({"SiT_model": {}}, 2), ["was not written by torch.save"]),
        "a web page": (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", ["web page"]),
        "a web page in capitals": (b"<HTML>quota exceeded</HTML>", ["web page"]),
        "empty": (b"", ["empty"]),
        "one byte": (b"\x80", ["not what"]),
        "git-lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n", ["git lfs pull"]),
        "safetensors": (weights, ["safetensors"]),
        "gzip": (b"\x1f\x8b" + zlib.compress(good), ["packed archive"]),
        "tar": (table.getvalue(), ["packed archive"]),
        "text": (b"Not found", ["does not begin"]),
        "zeros": (bytes(4096), ["does not begin"]),
    }
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        found[f"zip cut at {share}"] = (good[: int(len(good) * share)], ["zip"])
    return {what: Case(content, words) for what, (content, words) in found.items()}


def _overlapping() -> bytes:
    """Two hundred names for one entry of 100 kB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a/data.pkl", program(tensor()))
        file.writestr("a/data/0", bytes(100_000))
        at = file.filelist[-1]
        for n in range(1, 200):
            copy = zipfile.ZipInfo(f"a/data/{n}")
            copy.file_size, copy.compress_size, copy.CRC, copy.header_offset = (
                at.file_size,
                at.compress_size,
                at.CRC,
                at.header_offset,
            )
            file.filelist.append(copy)
        file._didModify = True  # type: ignore[attr-defined]
    return buffer.getvalue()


def network(
    *, width: int = 8, patch: int = 2, side: int = 2, depth: int = 1, layers: int = 3, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A very small network under the releases' names."""
    generator = torch.Generator().manual_seed(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.cls_token": (1, 1, width),
        "backbone.pos_embed": (1, side * side + 1, width),
        "backbone.patch_embed.proj.weight": (width, 3, patch, patch),
        "backbone.patch_embed.proj.bias": (width,),
    }
    for n in range(depth):
        for norm in ("norm1", "norm2"):
            shapes |= {f"backbone.blocks.{n}.{norm}.{kind}": (width,) for kind in ("weight", "bias")}
        for layer, (out, into) in {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}.items():
            shapes[f"backbone.blocks.{n}.{layer}.weight"] = (out * width, into * width)
            shapes[f"backbone.blocks.{n}.{layer}.bias"] = (out * width,)
    shapes |= {"backbone.norm.weight": (width,), "backbone.norm.bias": (width,)}
    for n in range(layers):
        shapes |= {f"head_recons.mlp.{2 * n}.weight": (width, width), f"head_recons.mlp.{2 * n}.bias": (width,)}
    shapes |= {"head_recons.convTrans.weight": (width, 3, patch, patch), "head_recons.convTrans.bias": (3,)}
    return {f"module.{key}": torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def release(kind: str, **options: Any) -> dict[str, Any]:
    """A very small checkpoint in the shape of a release."""
    args = argparse.Namespace(num_heads=2, lr=5e-4, out=Path("/data/somebody"), gpus={0, 1})
    if kind == "gmml":
        return {"SiT_model": network(**options), "epoch": 3, "args": args}
    networks: dict[str, Any] = {}
    for seed, role in enumerate(("student", "teacher")):
        each = network(layers=3 if kind == "sit" else 2, seed=seed, **options)
        width = each["module.backbone.cls_token"].shape[-1]
        more = (
            {"head.mlp.0.weight": (6, width)}
            if kind == "sit"
            else {"head.mlp.0.weight": (6, width), "head.last_layer.weight_v": (5, 6)}
        )
        networks[role] = each | {f"module.{key}": torch.full(shape, float(seed)) for key, shape in more.items()}
    return {**networks, "epoch": 3, "args": args}


class Mutator:
    """Mutations of good checkpoints, all following from a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        gmml = release("gmml")
        self.whole = [saved(gmml), saved(gmml, old=True), saved(release("sit"))]
        self.pickle, self.all = self._parts(self.whole[0])
        few = dict(list(gmml["SiT_model"].items())[:6])
        content, self.numbers = self._parts(saved({**gmml, "SiT_model": few}))
        at = [position for _, _, position in pickletools.genops(content) if position is not None]
        self.steps = [content[start:stop] for start, stop in zip(at, [*at[1:], len(content)], strict=True)]
        self.evil = [
            name("posix system"),
            name("builtins eval"),
            name("torch Size"),
            name("argparse Namespace"),
            name("numpy dtype"),
            name("builtins getattr"),
            name("functools partial"),
            name("mine Stage"),
        ]
        self.singles = [bytes([n]) for n in range(256)]

    def one(self) -> bytes:
        """The next input."""
        kind = self.random.randrange(4)
        if kind == 0:
            return self._bytes(self.random.choice(self.whole))
        if kind == 1:
            return archive(self._bytes(self.pickle), numbers=self.all)
        return (archive if kind == 2 else self._legacy)(self._steps(), numbers=self.numbers)

    @staticmethod
    def _parts(content: bytes) -> tuple[bytes, dict[str, bytes]]:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            top = file.namelist()[0].split("/")[0]
            numbers = {key.rsplit("/", 1)[1]: file.read(key) for key in file.namelist() if key.startswith(f"{top}/data/")}
            return file.read(f"{top}/data.pkl"), numbers

    def _legacy(self, content: bytes, numbers: Mapping[str, bytes]) -> bytes:
        tail = b"".join(struct.pack("<q", len(raw) // 4) + raw for raw in numbers.values())
        return legacy(content, list(numbers), tail)

    def _bytes(self, content: bytes) -> bytes:
        draw, out = self.random, bytearray(content)
        for _ in range(draw.choice((1, 1, 2, 4, 16))):
            at = draw.randrange(len(out) or 1)
            match draw.randrange(6):
                case 0:
                    out[at : at + 1] = bytes([(out[at] if at < len(out) else 0) ^ (1 << draw.randrange(8))])
                case 1:
                    out[at : at + 1] = bytes([draw.randrange(256)])
                case 2:
                    del out[at : len(out) if draw.random() < 0.2 else at + draw.randrange(1, 9)]
                case 3:
                    out[at:at] = draw.randbytes(draw.randrange(1, 9))
                case 4:
                    out[at : at + 4] = struct.pack("<I", draw.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, len(out))))
                case _:
                    start = draw.randrange(len(out) or 1)
                    out[at:at] = out[start : start + draw.randrange(1, 65)]
        return bytes(out)

    def _steps(self) -> bytes:
        draw, steps = self.random, list(self.steps)
        for _ in range(draw.choice((1, 1, 2, 4))):
            at = draw.randrange(len(steps))
            match draw.randrange(6):
                case 0:
                    del steps[at]
                case 1:
                    steps.insert(at, draw.choice(self.steps))
                case 2:
                    other = draw.randrange(len(steps))
                    steps[at], steps[other] = steps[other], steps[at]
                case 3:
                    steps[at] = draw.choice(self.singles) + steps[at][1:]
                case 4:
                    steps[at] = draw.choice(self.evil)
                case _:
                    steps[at] = number(draw.choice((-1, 0, 1, 7, 1 << 31, 1 << 62, 1 << 100)))
        return b"".join(steps)
