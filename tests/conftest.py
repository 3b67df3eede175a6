"""Fixtures and settings that all tests share."""

from __future__ import annotations

import os
import warnings

import pytest
from hypothesis import settings

with warnings.catch_warnings():  # without numpy torch warns when it is loaded; as an error that would be the end
    warnings.simplefilter("ignore")
    import torch

torch.set_num_threads(1)  # the CPUs are shared: a second thread waits for whoever holds its core
settings.register_profile("default", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("default")

_NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
_DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_GPU])]


@pytest.fixture(scope="session", params=_DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def generator(device: torch.device) -> torch.Generator:
    """A fresh generator on the device, always seeded alike."""
    return torch.Generator(device).manual_seed(2024)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the Hub's client refuse requests at once; without a network it tries each for 23 seconds."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
