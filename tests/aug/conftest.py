"""What the tests of the Triton kernels share."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
import torch

from gmml_aug.backends.triton import lower as fused_steps


@pytest.fixture(scope="module", params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def where(request: pytest.FixtureRequest) -> torch.device:
    """Triton's interpreter, or a GPU; a process has either, for kernels are defined once."""
    interprets = os.environ.get("TRITON_INTERPRET") == "1"
    if not fused_steps.has_triton():
        pytest.skip("needs triton")
    if request.param == "cuda" and (interprets or not torch.cuda.is_available()):
        pytest.skip("needs a CUDA device, and no interpreter")
    if request.param == "cpu" and not interprets:
        pytest.skip("runs in a process of its own, see the last test")
    if interprets:  # it looks for overflows of 32 bits at every operation, which takes half of the time
        from triton.runtime import interpreter  # type: ignore[import-untyped, unused-ignore]

        interpreter.interpreter_builder.options = replace(interpreter.interpreter_builder.options, sanitize_overflow=False)
    return torch.device(request.param)
