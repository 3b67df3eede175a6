"""The one call of a GPU session runs to its end, on the CPU and at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gmml_aug.backends.triton import lower as fused_steps

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(not fused_steps.has_triton(), reason="needs triton")
def test_every_part_of_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_session", str(tmp_path / "all.json"), "--rehearse"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert found.pop("about")["rehearsal"]
    assert len(found) == 5
    assert not [part for part in found.values() if "error" in part or "left out" in part]
    (training,) = (part for part in found.values() if "share" in part)
    assert set(training["share"]) == {"torch", "fused", "from bytes, torch", "from bytes, fused"}
    assert all(row["differs in"] == 0 for row in found["graphs"].values())
