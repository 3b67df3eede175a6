"""What the tests of the Triton kernels share."""

from __future__ import annotations

import pytest
import torch

from benchmarks.triton_interpreter import hurry
from gmml_aug.backends.triton import lower as fused_steps
from tests.aug.interpreter import INTERPRETS


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def where(request: pytest.FixtureRequest) -> torch.device:
    """Triton's interpreter, or a GPU; a process has either, for kernels are defined once."""
    if not fused_steps.has_triton():
        pytest.skip("needs triton")
    if request.param == "cuda" and (INTERPRETS or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device, and no interpreter")
    if request.param == "cpu" and not INTERPRETS:
        pytest.skip("runs in a process of its own, see the last test")
    if INTERPRETS:
        hurry()
    return torch.device(request.param)
