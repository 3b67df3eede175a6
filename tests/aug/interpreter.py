"""Tests of the Triton kernels by Triton's interpreter: in a process of its own, since kernels are defined for it or for a GPU."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, settings

from gmml_aug.backends.triton import lower

INTERPRETS = os.environ.get("TRITON_INTERPRET") == "1"
_ALL = "GMML_TEST_EVERYTHING"
BRIEF = INTERPRETS and _ALL not in os.environ  # it takes a hundred times as long as a GPU: fewer examples, smaller images

runs_once = pytest.mark.skipif(INTERPRETS or not lower.has_triton(), reason="needs triton, and runs once")
# random shapes may look like clips, of which the library rightly warns: test_advice.py
volumes_are_meant = pytest.mark.filterwarnings("ignore:gmml_aug. images of shape .* are treated as volumes:UserWarning")
few_or_all = pytest.mark.parametrize("everything", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["few", "all"])


def examples(most: int) -> settings:
    """Hypothesis' settings: this number of examples, or a quarter of it."""
    unlimited = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=max(2, most // 4) if BRIEF else most, suppress_health_check=unlimited)


def by_interpreter(file: str, *, everything: bool, only: str = "") -> None:
    """Run the tests of a file, or those that match ``only``, in a process with the interpreter."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *(["-k", only] if only else []), file]
    environment = {**os.environ, "TRITON_INTERPRET": "1", **({_ALL: "1"} if everything else {})}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
