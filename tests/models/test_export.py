"""Encoders and autoencoders leave torch: exported with a free batch and size, and as ONNX, they compute what they did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmml_models as gm

SMALL: dict[str, Any] = {"depth": 2, "img_size": 32, "patch_size": 8, "embed_dim": 32, "num_heads": 2}
SIZES = [(2, 32, 32), (3, 40, 24), (5, 64, 48)]
PATCHES = ("rows", "columns")


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    model = gm.GMMLAutoencoder("vit_micro_patch8_64", **SMALL).eval()
    return {"encoder": model.encoder, "autoencoder": model}


def free() -> dict[str, Any]:
    """The batch and the numbers of patches are free."""
    rows, columns = (torch.export.Dim(name, min=2, max=64) for name in PATCHES)
    found: dict[Any, Any] = {0: torch.export.Dim("images", min=2, max=1024), 2: 8 * rows, 3: 8 * columns}
    return found


def close(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize("kind", ["encoder", "autoencoder"])
def test_exported_with_a_free_batch_and_size_it_computes_the_same(kind: str) -> None:
    model = models()[kind]
    with torch.no_grad():
        exported: Any = torch.export.export(model, (torch.randn(3, 3, 48, 40),), dynamic_shapes=(free(),)).module()
        for batch, height, width in SIZES:
            images = torch.randn(batch, 3, height, width)
            assert close(exported(images), model(images)), (batch, height, width)


@pytest.mark.parametrize("kind", ["encoder", "autoencoder"])
def test_as_onnx_it_computes_the_same(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="torch writes ONNX through onnxscript, which is not installed")
    runtime: Any = pytest.importorskip("onnxruntime", reason="what was written is run by onnxruntime, which is not installed")
    model, path = models()[kind], tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.randn(3, 3, 48, 40),), str(path), dynamo=True, dynamic_shapes=(free(),), input_names=["images"])
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, height, width in SIZES:
        images = torch.randn(batch, 3, height, width)
        (found,) = session.run(None, {"images": images.numpy()})
        with torch.no_grad():
            assert torch.allclose(torch.from_numpy(found), model(images), atol=1e-4), (batch, height, width)
