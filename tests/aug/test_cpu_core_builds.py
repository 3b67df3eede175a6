"""The compiled core by every compiler that is found, for other processors too, and under the sanitizers with random recipes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gmml_aug as ga
from gmml_aug.backends.cpu import library
from gmml_aug.backends.cpu import paint as cpu_paint
from gmml_aug.backends.cpu import plan as cpu_plan
from gmml_aug.backends.cpu.build import FLAGS, FOLDER, compile_core, machine
from tests.helpers import DTYPES, leaves, random_images, same_bits, some_keys

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the compilers' options are those of Linux")

HARNESS = Path(__file__).parent / "core_fuzz.c"
CASES = 3_000
DIGEST = "72c1896574056e7a"  # of the plans and images of these cases, on every processor
# by which command a program is compiled, and by which one it runs
BUILDS = {
    "gcc": (["gcc"], []),
    "clang": (["clang"], []),
    "gcc for arm64": (["aarch64-linux-gnu-gcc", "-static"], ["qemu-aarch64"]),
}
SANITIZERS = ("-g", "-O2", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
QUICK = {"ASAN_OPTIONS": "quarantine_size_mb=1:malloc_context_size=2"}


def compile_harness(build: str, target: Path, *flags: str) -> list[str]:
    """The command that runs the harness, compiled without a warning; skips where something for it is missing."""
    command, runner = BUILDS[build]
    for word in (command[0], *runner):
        if shutil.which(word) is None:
            pytest.skip(f"no {word}")
    options = [flag for flag in FLAGS if flag not in ("-fPIC", "-shared")]
    strict = ["-Wall", "-Wextra", "-Werror", f"-I{FOLDER}", "-DGMML_SOURCES=0ull"]
    objects = []
    for source in (HARNESS, *sorted(FOLDER.glob("*.c"))):  # the harness looks at no memory that is not its own: it goes without
        objects.append(str(target.with_name(source.stem + ".o")))
        these = () if source is HARNESS else flags
        _run([*command, *options, *strict, *these, "-c", str(source), "-o", objects[-1]])
    _run([*command, *flags, *objects, "-o", str(target), "-lm"])
    return [*runner, str(target)]


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if missing := re.search(r"cannot find \S*(?:clang_rt|libasan|libubsan)\S*", done.stderr):
        pytest.skip(f"{words[0]} comes without sanitizers here: {missing[0]}")
    assert done.returncode == 0, done.stderr


def run_cases(command: list[str], first: int, cases: int, timeout: int) -> str:
    """What the harness says of its cases."""
    words = [*command, str(first), str(cases)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, env=os.environ | QUICK)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("build", BUILDS)
def test_every_compiler_and_processor_gives_the_recorded_bits(build: str, tmp_path: Path) -> None:
    said = run_cases(compile_harness(build, tmp_path / "harness"), 0, CASES, 300)
    counts = re.fullmatch(r"(\d+) plans, (\d+) painted, (\d+) refused, digest (\w+)\n", said)
    assert counts is not None
    plans, painted, refused = (int(counts[k]) for k in (1, 2, 3))
    assert plans == painted + refused == CASES
    assert min(painted, refused) > CASES // 10
    assert counts[4] == DIGEST


@pytest.mark.slow
@pytest.mark.parametrize("build", ["gcc", "clang"])
def test_a_million_recipes_shapes_and_damaged_plans_leave_the_sanitizers_silent(build: str, tmp_path: Path) -> None:
    run_cases(compile_harness(build, tmp_path / "harness", *SANITIZERS), 0, 1_000_000, 7200)


@pytest.mark.slow
@pytest.mark.parametrize("build", ["gcc", "clang"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_another_compiler_s_core_gives_the_same_bits(
    build: str, dtype: torch.dtype, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which(build) is None or isinstance(library.library(), str):
        pytest.skip(f"no {build}, or no core")
    folder = tmp_path_factory.getbasetemp() / f"core_by_{build}"
    if not folder.exists():
        folder.mkdir()
        monkeypatch.setenv("CC", build)
        compile_core(folder, ("-Wall", "-Wextra", "-Werror"))
    core = library.load(folder / Path(os.environ.get("GMML_CORE") or library.library()._name).name)
    assert not isinstance(core, str), core
    blurs = ga.Chain([ga.Noise(distribution="matched"), ga.Grey(), ga.Blur(sigma=5.0), ga.Mean()])
    blocks = ga.presets.beit()
    for tree in (ga.presets.gmml(values=((0.5, 0.4, 0.3), (0.2, 0.2, 0.3))), blurs, blocks):
        images, keys = random_images((4, 3, 70, 90), dtype), some_keys(4)
        found = []
        for one in (library.library(), core):
            with monkeypatch.context() as patch:
                for module in (cpu_paint, cpu_plan):
                    patch.setattr(module, "library", lambda one=one: one)
                found.append((tree(images, keys=keys, backend="cpu"), tree.sample(images.shape, keys=keys, backend="cpu")))
        assert same_bits(found[0][0].images, found[1][0].images)
        assert torch.equal(found[0][0].mask, found[1][0].mask)
        assert all(same_bits(a, b) for a, b in zip(leaves(found[0][1]), leaves(found[1][1]), strict=True))
    assert machine() != "x86_64" or "x86_64" in core._name
