"""The kernels compile with the oldest Triton that is asked for, one between, and the newest: slow, asks the package index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.parametrize("version", ["3.4.0", "3.6.0", "3.9.0"])
def test_the_kernels_compile_with_other_versions(version: str, tmp_path: Path) -> None:
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), f"triton=={version}"]
    subprocess.run([sys.executable, *words], check=True)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    found = subprocess.run(
        [sys.executable, "-c", "import triton; print(triton.__version__)"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == version
    file = ROOT / "tests" / "aug" / "test_fused_compiles.py"
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore", str(file)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-4000:]
    assert " passed" in ended.stdout
    assert "skipped" not in ended.stdout
