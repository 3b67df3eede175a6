"""The reader of other people's checkpoints: good files read as torch reads them, and hostile ones run, fill and hang nothing."""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import pickle
import subprocess
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gmml_models.convert.releases import translate
from gmml_models.convert.torch_checkpoint import read_checkpoint
from gmml_models.errors import NotThereError, UnreadableFileError, WeightsError

from . import hostile

_ROOT = Path(__file__).parents[2]
_WORKER = """
import json, resource, sys, time
from pathlib import Path
import torch
from gmml_models.convert.torch_checkpoint import read_checkpoint
from gmml_models.convert.releases import translate
from gmml_models.errors import WeightsError
from tests.models.hostile import network
torch.set_num_threads(1)
translate({"SiT_model": network(), "args": {"num_heads": 2}})  # imports what it needs
pages = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (pages + int(sys.argv[2]),) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sorted(Path(sys.argv[1]).iterdir()):
    start = time.process_time()
    try:
        translate(read_checkpoint(path))
        said = ["nothing", ""]
    except Exception as error:
        said = [type(error).__name__, str(error)]
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(json.dumps([path.name, *said, time.process_time() - start, grown]), flush=True)
"""


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_good_files_read_as_torch_reads_them(tmp_path: Path, old: bool) -> None:
    strided = torch.arange(24.0).reshape(4, 6)[1:, ::2].t()
    value = {
        "SiT_model": OrderedDict(
            a=torch.nn.Parameter(torch.randn(2, 3)), b=torch.randn(3).bfloat16(), c=strided, d=torch.zeros(0, 3)
        ),
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(5).half()}},
            "groups": [{"betas": (0.9, 0.999)}],
        },
        "shared": [strided, torch.tensor([True, False]), torch.arange(3), torch.zeros((), dtype=torch.uint8)],
        "linear": torch.nn.Linear(2, 2).state_dict(),
        "epoch": 3,
        "best": np.float64(0.5),
        "count": np.int64(-4),
        "args": argparse.Namespace(lr=5e-4, out=pathlib.PosixPath("/a/b"), none=None, flag=True, big=2**70),
        "misc": {
            "device": torch.device("cuda:1"),
            "size": torch.Size([1, 2]),
            "dtype": torch.float32,
            "set": {1},
            "bytes": b"a\xff",
        },
    }
    path = tmp_path / "good.pth"
    path.write_bytes(hostile.saved(value, old=old))
    mine = read_checkpoint(path)
    theirs = torch.load(path, map_location="cpu", weights_only=False)  # our own file
    _same(mine["SiT_model"], theirs["SiT_model"])
    _same(mine["optimizer"], theirs["optimizer"])
    _same(mine["shared"], theirs["shared"])
    _same(mine["linear"], theirs["linear"])
    assert mine["args"] == {"lr": 5e-4, "out": "/a/b", "none": None, "flag": True, "big": 2**70}
    assert (mine["epoch"], mine["best"], mine["count"]) == (3, 0.5, -4)
    assert mine["misc"] == {"device": "cuda:1", "size": (1, 2), "dtype": "torch.float32", "set": [1], "bytes": b"a\xff"}


def _same(mine: Any, theirs: Any) -> None:
    if isinstance(theirs, Tensor):
        assert type(mine) is Tensor
        assert mine.dtype == theirs.dtype
        assert mine.stride() == theirs.stride()
        assert torch.equal(mine, theirs)
    elif isinstance(theirs, Mapping):
        assert list(mine) == list(theirs)
        for key in theirs:
            _same(mine[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(mine) is type(theirs)
        for one, other in zip(mine, theirs, strict=True):
            _same(one, other)
    else:
        assert mine == theirs


@pytest.mark.parametrize("name", ["gmml_a", "sit_a"])
def test_the_recorded_checkpoints_read_as_torch_reads_them(name: str) -> None:
    path = _ROOT.parent / "shared" / "conformance" / f"{name}.pth"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with torch.serialization.safe_globals([argparse.Namespace]):
        theirs = torch.load(path, map_location="cpu", weights_only=True)
    mine = read_checkpoint(path)
    assert mine.pop("args") == vars(theirs.pop("args"))
    _same(mine, theirs)


def test_what_is_read_can_be_written_without_touching_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(content := hostile.saved({"a": torch.ones(4)}))
    read_checkpoint(path)["a"].zero_()
    assert path.read_bytes() == content


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        (tmp_path / "a.pth").write_bytes(hostile.saved({"a": torch.ones(4)}))
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_checkpoint(tmp_path / "a.pth")["a"], torch.ones(4))


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("canary") / "canary"


@pytest.fixture(scope="module")
def corpus(canary: Path) -> dict[str, hostile.Case]:
    return {**hostile.running(canary), **hostile.growing(), **hostile.containers()}


def test_an_ordinary_unpickler_falls_for_the_corpus(canary: Path, corpus: dict[str, hostile.Case], tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    for what in (
        "os.system, zip",
        "os.system, old format",
        "eval, zip",
        "exec, zip",
        "torch.hub by partial, zip",
        "runpy, zip",
        "namespace, zip",
    ):
        path.write_bytes(corpus[what].content)
        canary.unlink(missing_ok=True)
        torch.load(path, weights_only=False)  # they only touch a file
        assert canary.exists(), what
    for protocol in range(6):
        canary.unlink(missing_ok=True)
        pickle.loads(corpus[f"os.system, bare, protocol {protocol}"].content)
        assert canary.exists(), protocol
    canary.unlink()


def test_hostile_files_run_nothing_fill_nothing_and_are_named(
    canary: Path, corpus: dict[str, hostile.Case], tmp_path: Path
) -> None:
    names = list(corpus)
    for number, name in enumerate(names):
        (tmp_path / f"{number:04d}").write_bytes(corpus[name].content)
    worker = subprocess.run(
        [sys.executable, "-c", _WORKER, str(tmp_path), str(512 << 20)],
        cwd=_ROOT, capture_output=True, text=True, timeout=900, check=False,  # of a busy machine; each file has its processor time
    )  # fmt: skip
    results = [json.loads(line) for line in worker.stdout.splitlines()]
    assert len(results) == len(names), worker.stderr[-2000:]
    wrong = []
    for (_, kind, said, seconds, grown), name in zip(results, names, strict=True):
        clear = (
            kind in ("UnreadableFileError", "WrongKeysError")
            and any(word in said for word in corpus[name].words)
            and len(said) < 1500
        )
        if not clear or seconds > 5 or grown > 400 << 20:
            wrong.append((name, kind, said[:300], seconds, grown))
    assert not wrong
    assert not canary.exists()


def test_other_things_than_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(NotThereError, match="does not exist"):
        read_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(UnreadableFileError, match="is a folder"):
        read_checkpoint(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UnreadableFileError, match="not a regular file"):
            read_checkpoint(tmp_path / "pipe")
    (tmp_path / "large.pth").write_bytes(bytes(100))
    with pytest.raises(UnreadableFileError, match="most_bytes"):
        read_checkpoint(tmp_path / "large.pth", most_bytes=99)


def fuzz(count: int, seed: int, folder: Path, canary: Path) -> dict[str, int]:
    """Read and translate mutated checkpoints; how they ended. Nothing but our own errors may come, and soon."""
    mutator, ended = hostile.Mutator(seed), dict.fromkeys(("read", "translated", "refused"), 0)
    path = folder / "fuzz.pth"
    translate({**hostile.release("gmml"), "args": {"num_heads": 2}})  # imports what it needs
    for number in range(count):
        content = mutator.one()
        path.unlink(missing_ok=True)  # tensors of the last one may still be mapped
        path.write_bytes(content)
        start = time.process_time()
        try:
            checkpoint = read_checkpoint(path)
            ended["read"] += 1
            translate(checkpoint)
            ended["translated"] += 1
        except (WeightsError, ValueError):
            ended["refused"] += 1
        except Exception as error:
            kept = folder / f"failed-{seed}-{number}.pth"
            kept.write_bytes(content)
            raise AssertionError(f"input {number} of seed {seed}, kept as {kept}: {error!r}") from error
        assert time.process_time() - start < 5, (seed, number)
        assert not canary.exists(), (seed, number)
    return ended


@pytest.mark.parametrize("count", [2_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_mutated_checkpoints_are_read_or_refused(count: int, tmp_path: Path, canary: Path) -> None:
    ended = fuzz(count, 2026, tmp_path, canary)
    print(f"{count} mutated checkpoints: {ended}")
    assert ended["read"] > count // 100  # the mutations reach behind the reader
    assert ended["refused"] > count // 2
