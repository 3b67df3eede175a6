"""Every block of docs/adapters.md runs as it is printed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "adapters.md").read_text(encoding="utf-8")
FIRST, *SECTIONS = re.split(r"^## ", TEXT, flags=re.M)
BLOCKS = [(section.partition("\n")[0], code) for section in SECTIONS for code in re.findall(r"```python\n(.*?)```", section, re.S)]
NEEDS = {
    "torchvision": ["torchvision"],
    "kornia": ["kornia"],
    "Lightning": ["lightning"],
    "Hugging Face Trainer": ["transformers", "accelerate"],
}


def test_every_adapter_has_its_block() -> None:
    titles = [title for title, _ in BLOCKS]
    assert set(titles) >= {"A loop of your own", "DataLoader", "timm", "Several processes", *NEEDS}
    table = FIRST[FIRST.index("| host") :]
    assert all(
        name in table for name in ("ga.Module", "ga.CollateCorrupt", "ga.TimmCorrupt", "kornia_adapter", "torchvision_adapter")
    )


@pytest.mark.parametrize(("title", "code"), [block for block in BLOCKS if "__main__" not in block[1]], ids=lambda part: part[:12])
def test_a_block_runs(title: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in NEEDS.get(title, []):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, object] = {"__name__": "adapters"}
    with warnings.catch_warnings():
        if title in ("Lightning", "Hugging Face Trainer"):  # they warn of their own choices: few workers, no GPU
            warnings.simplefilter("ignore")
        setup = re.findall(r"```python\n(.*?)```", FIRST, re.S)[0]
        for source in (setup, code):
            exec(compile(source, f"docs/adapters.md: {title}", "exec"), names)


def test_the_script_of_two_processes_runs(tmp_path: Path) -> None:
    (script,) = (code for _, code in BLOCKS if "__main__" in code)
    (tmp_path / "script.py").write_text(script, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-W", "error", "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
