"""The quickstart's first command as a stranger runs it: how soon it speaks, how soon there is a picture, how much memory it takes.

Times are the processor's, those of the command and of all that it starts: a machine with other work changes them little, and one
that waits for nothing needs no more seconds than that by the clock on one core.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gmml_models.data.image_files import bundled
from tests.document_blocks import ROOT, blocks, commands
from tests.models.data_files import picture

SPEAKS, ANSWERS, DRAWS, MEMORY = 10.0, 10.0, 120.0, 3 << 30  # three times seconds of one core, bytes
GMML = Path(sysconfig.get_path("scripts")) / "gmml"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="asks Linux for memory and times"),
    pytest.mark.skipif(not GMML.exists(), reason="the package is not installed here: there is no gmml"),
    pytest.mark.skipif(not bundled(), reason="scikit-image, whose photographs are read, is not installed"),
]


def family(pid: int) -> Iterator[int]:
    """A process and all that it started."""
    yield pid
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in (thread / "children").read_text().split():
            yield from family(int(child))


def processor_time(pid: int) -> float:
    """Seconds of the processor that a process has used, and those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def memory(pid: int) -> int:
    """Bytes of a process; of pages that several share, its part."""
    (line,) = (one for one in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines() if one.startswith("Pss:"))
    return int(line.split()[1]) * 1024


class Watched:
    """A command at work: its lines, and what it and its children have used."""

    def __init__(self, words: list[str], folder: Path) -> None:
        alone = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(words, cwd=folder, env=alone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines: list[tuple[float, str]] = []
        self.peak, self.seconds = 0, 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.look()
            self.lines.append((self.seconds, line.rstrip()))

    def look(self) -> None:
        """Note memory and time of the moment."""
        try:
            there = list(family(self.process.pid))
            self.peak = max(self.peak, sum(map(memory, there)))
            self.seconds = max(self.seconds, sum(map(processor_time, there)))
        except (OSError, ValueError):  # one of them has just ended
            return

    def wait_for(self, path: Path, seconds: float) -> float:
        """Until a file is there; the time of the processor by then."""
        deadline = time.monotonic() + seconds
        while not path.exists() and self.process.poll() is None and time.monotonic() < deadline:
            self.look()
            time.sleep(0.05)
        assert path.exists(), f"{path.name} is not there:\n{self.text}"
        return self.seconds

    @property
    def text(self) -> str:
        return "\n".join(line for _, line in self.lines)

    def end(self) -> int:
        code = self.process.wait(600)
        self._reader.join(60)
        return code

    def close(self) -> None:
        assert self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self._reader.join(60)
        self.process.stdout.close()


def write_collection(folder: Path, count: int) -> None:
    """Pieces of scikit-image's photographs in several sizes, and as many made pictures."""
    photographs = [Image.open(path).convert("RGB") for path in bundled()]
    chance = np.random.default_rng(0)
    for number in range(count):
        (folder / f"album {number % 5}").mkdir(parents=True, exist_ok=True)
        one = photographs[number % len(photographs)]
        side = int(chance.integers(120, 300))
        left, top = (int(chance.integers(0, edge - side)) for edge in one.size)
        piece = one.crop((left, top, left + side, top + side)) if number % 2 else picture(number, 200, 260)
        piece.save(folder / f"album {number % 5}" / f"{number:04d}.jpg")


def quickstart(name: str) -> list[str]:
    """The first command of the quickstart for a computer without a GPU, without ``--dry-run``."""
    page = ROOT / "docs" / "quickstart.md"
    first = next(line for block in blocks(page) for line in commands(block) if line.startswith(f"gmml {name} --recipe small"))
    return [word for word in shlex.split(first)[1:] if word != "--dry-run"]


def test_the_first_command_speaks_at_once_draws_soon_and_fits(tmp_path: Path) -> None:
    write_collection(tmp_path / "flowers", 600)
    words = quickstart("pretrain")
    assert words[words.index("--data") + 1] == "flowers"
    out = tmp_path / words[words.index("--out") + 1]
    run = Watched([str(GMML), *words, "--cpu"], tmp_path)
    try:
        drawn = run.wait_for(out / "pictures" / "epoch-00001.png", 1800)
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 3, run.text
    finally:
        run.close()
    said, line = run.lines[0]
    assert line.startswith("gmml pretrain: 600 images in flowers")
    print(f"first line after {said:.1f} s, first picture after {drawn:.1f} s of one core, {run.peak / 2**20:,.0f} MiB at most")
    assert said < SPEAKS
    assert drawn < DRAWS
    assert run.peak < MEMORY
    assert (out / "curves.png").exists()
    with Image.open(out / "pictures" / "epoch-00001.png") as sheet:
        assert min(sheet.size) > 200
    assert "Run the same command again to resume." in run.text
    assert list((out / "checkpoints").glob("step-*"))


def test_the_estimate_takes_seconds_and_leaves_nothing(tmp_path: Path) -> None:
    write_collection(tmp_path / "flowers", 100)
    before = os.times()
    ran = subprocess.run(
        [str(GMML), *quickstart("pretrain"), "--dry-run", "--cpu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    print(f"dry run: {seconds:.1f} s of the processor")
    assert ran.returncode == 0, ran.stderr
    assert "steps: 100 = 100 epochs of 1 (100 images)" in ran.stdout
    assert "time: " in ran.stdout
    assert seconds < ANSWERS
    assert [path.name for path in tmp_path.iterdir()] == ["flowers"]
