"""A model's whole way: pushed to the Hub, and loaded back by gmml_models, timm and transformers, with the real clients."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.hub_server import Hub, serving

PUSH = """
import torch, gmml_models as gm
torch.manual_seed(0)
model = gm.GMMLAutoencoder("vit_micro_patch8_64", depth=2).eval()
print(model.push_to_hub("someone/small", about={"data": {"name": "nothing", "licence": "CC0-1.0"}}, license="cc0-1.0"))
torch.save(model.state_dict(), "state.pt")
"""

LOAD = """
import sys
import timm, torch, transformers
import gmml_models as gm
state = torch.load("state.pt", weights_only=True)
given = torch.randn(1, 3, 64, 64)
model = gm.GMMLAutoencoder.from_pretrained("someone/small", **OPTIONS)
assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
expected = model.encoder.forward_features(given)
assert torch.equal(gm.from_pretrained("someone/small", **OPTIONS).forward_features(given), expected)
assert torch.equal(timm.create_model("hf-hub:someone/small", pretrained=True).eval().forward_features(given), expected)
by_transformers = transformers.AutoModel.from_pretrained("someone/small").eval()
assert torch.equal(by_transformers(pixel_values=given).last_hidden_state, expected)
"""

REPAIR = """
import pathlib
import gmml_models as gm
from gmml_models.errors import WrongBytesError
from huggingface_hub import hf_hub_download
blob = pathlib.Path(hf_hub_download("someone/small", "model.safetensors", local_files_only=True)).resolve()
raw = bytearray(blob.read_bytes())
raw[-1] ^= 1
blob.write_bytes(raw)
try:
    gm.from_pretrained("someone/small")
except WrongBytesError as error:
    assert "force_download=True" in str(error)
else:
    raise AssertionError("wrong bytes were loaded")
gm.GMMLAutoencoder.from_pretrained("someone/small", force_download=True)
gm.from_pretrained("someone/small", force_download=True)
gm.from_pretrained("someone/small")
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    pytest.importorskip("transformers")
    with serving(tmp_path / "home") as running:
        yield running


def run(hub: Hub, folder: Path, code: str, **more: str) -> None:
    # the client's own deprecations are not ours to mend, so warnings are not errors in there
    environment = {**os.environ, **hub.environment(), **more}
    root = str(Path(__file__).parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environment.get("PYTHONPATH")]))
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_pushed_and_loaded_back_by_three_loaders_then_again_without_network(hub: Hub, tmp_path: Path) -> None:
    run(hub, tmp_path, PUSH)
    run(hub, tmp_path, "OPTIONS = {}" + LOAD)
    requests = len(hub.requests)
    run(hub, tmp_path, "OPTIONS = {'local_files_only': True}" + LOAD, HF_HUB_OFFLINE="1")
    assert len(hub.requests) == requests
    run(hub, tmp_path, REPAIR)
