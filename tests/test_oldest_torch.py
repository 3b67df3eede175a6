"""The corruption library on the oldest torch it promises to work with: slow, and it asks the package index."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
@pytest.mark.network
def test_the_corruption_library_works_on_the_oldest_torch(tmp_path: Path) -> None:
    told = re.search(r'"torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert told is not None
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    # a torch of that time was built against numpy below 2.3 at most; safetensors is what plans are saved with
    needs = [f"torch=={told[1]}.*", "numpy<2.3", "pytest", "hypothesis", "safetensors"]
    subprocess.run([str(python), "-m", "pip", "install", "--quiet", *needs], check=True)
    # adapters want packages of their own; they are tested with the newest ones
    without = [f"--ignore={path}" for path in sorted((ROOT / "tests" / "aug").glob("test_adapters_*.py"))]
    words = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "aug"), *without]
    ended = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert ended.returncode == 0, ended.stdout[-4000:]
