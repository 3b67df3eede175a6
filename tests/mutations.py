"""Break lines of both packages one at a time, and see which tests notice: ``python -m tests.mutations`` (about half an hour).

Each line, below for `gmml_aug` and in `tests/models/mutations.py` for `gmml_models`, is a file, what stands there, what is put in
its place, and the tests that should notice. They run on a copy of the tree. What survives is printed, and the exit code is 1 if
more than two of the one or three of the other do: a survivor is a test that is missing. The list and the count of the last run are
in docs/testing.md.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.models.mutations import LINES

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {"gmml_aug": 2, "gmml_models": 3}  # survivors
_LONGEST = 1800.0  # seconds that the tests of a line may take


class Mutation(NamedTuple):
    """One line, broken."""

    file: str  # in its package
    old: str
    new: str
    tests: str  # arguments of pytest
    core: bool = False  # with the compiled core; else without it, as on a machine without a compiler
    package: str = "gmml_aug"


BOXES, WHERE, KEYS, FILLS = (
    "tests/aug/test_boxes.py",
    "tests/aug/test_where.py",
    "tests/aug/test_keys.py",
    "tests/aug/test_fills.py",
)
MUTATIONS = [
    # chance
    Mutation("chance.py", "_SHIFTS = (30, 27, 31)", "_SHIFTS = (30, 27, 30)", KEYS),
    Mutation("chance.py", "return mix(keys + mix_int(number + 1))", "return mix(keys + mix_int(number))", KEYS),
    Mutation("chance.py", ">> 40) & 0xFFFFFF).to", ">> 41) & 0x7FFFFF).to", KEYS),
    Mutation("chance.py", "return (half * span) >> 32", "return (half * (span - 1)) >> 32", BOXES),
    Mutation(
        "chance.py",
        "other = me + 1 + scale(chosen, max(self.donors - 1, 1))",
        "other = me + scale(chosen, max(self.donors - 1, 1))",
        "tests/aug/test_alien.py",
    ),
    Mutation(
        "chance.py",
        "low + below(self.words(math.prod(shape)), high - low + 1)",
        "low + below(self.words(math.prod(shape)), high - low)",
        FILLS,
    ),
    Mutation(
        "chance.py", "self._ahead[:, self._used - count : self._used]", "self._ahead[:, :count]", KEYS + " tests/aug/test_jitter.py"
    ),
    # places
    Mutation("places/boxes.py", "places - extent + 1 if", "places - extent if", BOXES),
    Mutation("places/boxes.py", "torch.minimum(extent, length - corner)", "extent", BOXES),
    Mutation("places/boxes.py", "corner = corner // step * step", "corner = corner // step * step + 1", BOXES),
    Mutation(
        "places/boxes.py",
        "boxes.masked_fill((number >= drawn)[..., None], 0)",
        "boxes.masked_fill((number > drawn)[..., None], 0)",
        BOXES,
    ),
    Mutation("places/boxes.py", "need = -math.log(1.0 - share) * crowding", "need = -math.log(1.0 - share) * crowding / 4", BOXES),
    Mutation(
        "places/base.py",
        "math.floor(ratio[1] * pixels + TINY)",
        "math.floor(ratio[1] * pixels - 1)",
        "tests/aug/test_contract.py " + BOXES,
    ),
    Mutation(
        "places/base.py",
        "return round(ratio * pixels), 1",
        "return int(ratio * pixels), 1",
        "tests/aug/test_contract.py -k covered",
    ),
    Mutation(
        "places/base.py",
        "return (ratios * math.prod(size)).round().long()",
        "return (ratios * math.prod(size)).long()",
        "tests/aug/test_ratios_lengths.py",
    ),
    Mutation("places/grid.py", "taken = fits & (new > 0) & (new <= left)", "taken = fits & (new > 0)", WHERE),
    Mutation("places/grid.py", "misses = (misses + 1) * ~taken", "misses = misses + 1", WHERE),
    Mutation(
        "places/grid.py",
        "chosen = words[:, 1 : 1 + total].argsort(dim=1)[:, :most]",
        "chosen = words[:, :total].argsort(dim=1)[:, :most]",
        WHERE + " " + KEYS,
    ),
    # coverage, masks
    Mutation(
        "backends/reference/coverage.py",
        "stop = (covered < wanted[:, None]).sum(1)",
        "stop = (covered <= wanted[:, None]).sum(1)",
        BOXES,
    ),
    Mutation(
        "backends/reference/coverage.py", "torch.where(offset < 0, offset + size[d], offset) + lines", "offset + lines", BOXES
    ),
    Mutation(
        "backends/reference/coverage.py",
        "last = count if more else count - 1",
        "last = count",
        "tests/aug/test_sequential.py " + BOXES,
    ),
    Mutation("backends/reference/coverage.py", "free = area.masked_fill(taken, 0)", "free = area", "tests/aug/test_budget.py"),
    Mutation(
        "backends/reference/coverage.py",
        "end = torch.where(limit.binds, torch.minimum(end, position), end)",
        "end = torch.minimum(end, position)",
        "tests/aug/test_budget.py",
    ),
    Mutation(
        "backends/reference/masks.py",
        "earlier = last.cumsum(1) - last.long()",
        "earlier = last.cumsum(1)",
        "tests/aug/test_places.py",
    ),
    Mutation(
        "backends/reference/masks.py",
        "kept = kept & (reached | ~binds[:, None])",
        "kept = kept & reached",
        "tests/aug/test_places.py",
    ),
    Mutation(
        "backends/reference/masks.py",
        "torch.where(offset < 0, offset + size[axis], offset) < extent",
        "(offset >= 0) & (offset < extent)",
        BOXES,
    ),
    Mutation("backends/reference/masks.py", "return ~mask if invert else mask", "return mask", WHERE),
    Mutation("backends/reference/sequential.py", "bits *= (lines | lines >> end)", "bits *= lines", "tests/aug/test_sequential.py"),
    # plan
    Mutation(
        "backends/reference/plan.py",
        "(uniform[:, gate.draw] < gate.high)",
        "(uniform[:, gate.draw] <= 1.0)",
        "tests/aug/test_budget.py tests/aug/test_presets.py tests/aug/test_fills.py tests/aug/test_explain.py",
    ),
    Mutation(
        "backends/reference/plan.py",
        "math.floor(program.budgets[budget] * math.prod(inner) + TINY)",
        "math.ceil(program.budgets[budget] * math.prod(inner) + 1)",
        "tests/aug/test_budget.py",
    ),
    Mutation(
        "backends/reference/plan.py", "boxes = [one.masked_fill(~column(counts, 3), 0)", "boxes = [one", "tests/aug/test_budget.py"
    ),
    Mutation(
        "backends/reference/plan.py",
        "over = (boxes[..., axis] + boxes[..., dims + axis] - end).clamp(min=0)",
        "over = (boxes[..., axis] + boxes[..., dims + axis] - length).clamp(min=0)",
        "tests/aug/test_ratios_lengths.py",
    ),
    Mutation(
        "backends/reference/plan.py",
        "ratios = None if request.ratios is None else request.ratios[some]",
        "ratios = None",
        "tests/aug/test_trees.py tests/aug/test_ratios_lengths.py",
    ),
    # paint
    Mutation(
        "backends/reference/paint.py",
        "column(active & ~earlier, mask.ndim)",
        "column(active, mask.ndim)",
        WHERE + " tests/aug/test_contract.py",
    ),
    Mutation(
        "backends/reference/paint.py",
        "mask if maps.allowed is None else mask & maps.allowed",
        "mask",
        WHERE + " tests/aug/test_contract.py",
    ),
    Mutation(
        "backends/reference/paint.py",
        "scene = Scene(now, batch.images, batch.donors, here, program.values)",
        "scene = Scene(now, now, batch.donors, here, program.values)",
        FILLS + " tests/aug/test_alien.py tests/aug/test_elsewhere.py tests/aug/test_api.py",
    ),
    Mutation(
        "backends/reference/paint.py",
        "donors = clean if batch.donors is batch.images else",
        "donors = clean if True else",
        "tests/aug/test_from_bytes.py -k bank",
    ),
    Mutation(
        "backends/reference/pixels.py",
        "source = scene.donors if operation.donor else scene.clean",
        "source = scene.donors if operation.donor else scene.now",
        "tests/aug/test_elsewhere.py tests/aug/test_fills.py",
    ),
    Mutation(
        "backends/reference/pixels.py",
        "[-step for step in shift[image].tolist()]",
        "[step for step in shift[image].tolist()]",
        "tests/aug/test_elsewhere.py",
    ),
    Mutation(
        "backends/reference/pixels.py",
        "word = mix(start + c // _CHANNELS_A_WORD * size)",
        "word = mix(start)",
        "tests/aug/test_noise.py",
    ),
    Mutation(
        "backends/reference/pixels.py",
        "(bits.to(torch.float32) + 0.5) * 2.0**-16",
        "bits.to(torch.float32) * 2.0**-16",
        "tests/aug/test_noise.py",
    ),
    Mutation(
        "backends/reference/pixels.py",
        "middle, spread = sum(mean) / len(mean), sum(std) / len(std)",
        "middle, spread = mean[0], std[0]",
        "tests/aug/test_noise.py",
    ),
    Mutation(
        "backends/reference/pixels.py", "noise = noise.clamp(0.0, 1.0)", "noise = noise.clamp(0.0, 2.0)", "tests/aug/test_noise.py"
    ),
    Mutation(
        "backends/reference/pixels.py",
        "if before != [_version(one) for one in watched]:",
        "if False:",
        "tests/aug/test_own_fills.py",
    ),
    # functions
    Mutation("functional.py", "_LUMA = (0.299, 0.587, 0.114)", "_LUMA = (0.3, 0.59, 0.11)", FILLS + " tests/aug/test_jitter.py"),
    Mutation("functional.py", "period = 2 * (length - 1)", "period = 2 * length", "tests/aug/test_blur.py"),
    Mutation("functional.py", "pair.masked_fill_(weight == 0, 0.0) if guarded else pair", "pair", "tests/aug/test_blur.py"),
    Mutation(
        "functional.py", "chosen = (count << _BITS) >= area", "chosen = (count << _BITS) > area", "tests/aug/test_api.py -k patch"
    ),
    Mutation(
        "functional.py",
        "return computed.round().clamp(0, 255).to(torch.uint8)",
        "return computed.clamp(0, 255).to(torch.uint8)",
        FILLS + " tests/aug/test_fill_contract.py tests/aug/test_blur.py",
    ),
    Mutation(
        "functional.py",
        "(mask.shape[axis + 1] - left).clamp(max=side)",
        "torch.full_like(left, side)",
        "tests/aug/test_api.py -k patch",
    ),
    Mutation("functional.py", "order = word[:, 0].argsort()", "order = torch.arange(count)", "tests/aug/test_ratios_lengths.py"),
    Mutation(
        "colours.py",
        "_bound(centre + (plane - centre) * factor, bounded)",
        "_bound(plane * factor, bounded)",
        "tests/aug/test_jitter.py",
    ),
    Mutation("colours.py", "sixths = sixths + 6.0 * turns", "sixths = sixths + 3.0 * turns", "tests/aug/test_jitter.py"),
    Mutation(
        "values.py",
        "tuple(1.0 / (255.0 * std) for std in stds)",
        "tuple(1.0 / (256.0 * std) for std in stds)",
        "tests/aug/test_from_bytes.py",
    ),
    # plans and calls
    Mutation(
        "plan.py",
        "kept[:, step] = self.active[:, step]",
        "kept[:, step] = True",
        "tests/aug/test_plan.py tests/aug/test_explain.py",
    ),
    Mutation("call_checks.py", "if plan.fingerprint == program.fingerprint:", "if True:", "tests/aug/test_plan.py"),
    Mutation(
        "call_checks.py",
        "if program.reads_donors and found.shape[0] != plan.donors:",
        "if False:",
        "tests/aug/test_plan.py tests/aug/test_alien.py tests/aug/test_errors.py",
    ),
    Mutation("call_checks.py", "if overlap(out, images):", "if False:", "tests/aug/test_contract.py"),
    Mutation(
        "compose.py",
        "ends = [end / sum(weights) for end in accumulate(weights)]",
        "ends = [end / max(weights) for end in accumulate(weights)]",
        "tests/aug/test_fills.py tests/aug/test_budget.py tests/aug/test_presets.py",
    ),
    # what others call
    Mutation(
        "adapters/collate.py",
        "return mix(drawn + mix_int(mix_int(self.seed) + self.rank))",
        "return drawn",
        "tests/aug/test_adapters_collate.py",
    ),
    Mutation(
        "adapters/kornia.py", "(to_uniform(word) < self.p)", "(to_uniform(word) >= self.p)", "tests/aug/test_adapters_kornia.py"
    ),
    # the core
    Mutation(
        "backends/cpu/core/paint.c",
        "forced = forced && !active[before];",
        "forced = forced;",
        "tests/aug/test_cpu_core.py",
        core=True,
    ),
    Mutation("backends/cpu/core/plan.c", "high_half(mix(key))", "high_half(mix(key + 1))", "tests/aug/test_cpu_core.py", core=True),
    *(Mutation(*line, package="gmml_models") for line in LINES),
]


def run(mutation: Mutation, tree: Path) -> tuple[bool, str]:
    """Break the line in a copy of the tree, run the tests, mend it. True if they notice."""
    path = tree / mutation.package / mutation.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(mutation.old) < 1:
        raise SystemExit(f"{mutation.file} has no line {mutation.old!r} any more: bring the list up to date")
    path.write_text(whole.replace(mutation.old, mutation.new, 1), encoding="utf-8")
    try:
        for core in (tree / "gmml_aug/backends/cpu/core").glob("*.so"):
            core.unlink()
        if mutation.core:
            subprocess.run([sys.executable, "-m", "gmml_aug.backends.cpu.build"], cwd=tree, check=True, capture_output=True)
        return _pytest(tree, mutation.tests)
    finally:
        path.write_text(whole, encoding="utf-8")


def _pytest(tree: Path, words: str) -> tuple[bool, str]:
    """Run tests in a copy of the tree, in a fork of this process: whether one failed, and pytest's last line."""
    child = os.fork()
    if child == 0:
        code = 70  # what goes wrong here must not unwind into the parent's clearing up
        try:
            os.chdir(tree)
            os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", CI="1")
            with (tree / "said").open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", *ALLOWED)]:
                del sys.modules[name]
            sys.path[:0] = [str(tree)]
            options = [
                "-x",
                "-q",
                "-p",
                "no:cacheprovider",
                "-W",
                "ignore::pytest.PytestAssertRewriteWarning",
                "-k",
                "not interpreter",
            ]
            code = int(pytest.main([*options, *shlex.split(words)]))
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    until = time.monotonic() + _LONGEST
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0):
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True, "it did not end"
        time.sleep(0.1)
    said = (tree / "said").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    code = os.waitstatus_to_exitcode(ended[1])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        raise SystemExit(f"{words} could not be run, exit code {code}:\n" + "\n".join(said[-20:]))
    return code == pytest.ExitCode.TESTS_FAILED, said[-1] if said else "nothing"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run those that are asked for, all of them by default."""
    reader = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    reader.add_argument("--only", default="", help="files whose path holds this, for example gmml_models/train")
    reader.add_argument("--first", type=int, default=0, help="begin with this number")
    asked = reader.parse_args(arguments)
    for name in ("timm", "kornia", "sklearn.linear_model", "hypothesis"):  # once, not in every fork
        with warnings.catch_warnings(), suppress(ImportError):
            warnings.simplefilter("ignore")
            importlib.import_module(name)
    chosen = [(n, one) for n, one in enumerate(MUTATIONS) if asked.only in f"{one.package}/{one.file}" and n >= asked.first]
    survivors: dict[str, int] = dict.fromkeys(ALLOWED, 0)
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "site", "runs", "__pycache__", ".*_cache"))
        for number, mutation in chosen:
            noticed, said = run(mutation, tree)
            word = "noticed " if noticed else "SURVIVED"
            print(
                f"{number:3d} {word} {mutation.package}/{mutation.file}: {mutation.old}  ->  {mutation.new}  [{said}]", flush=True
            )
            survivors[mutation.package] += not noticed
    print(f"{len(chosen) - sum(survivors.values())} of {len(chosen)} noticed")
    return int(any(survivors[package] > most for package, most in ALLOWED.items()))


if __name__ == "__main__":
    raise SystemExit(main())
