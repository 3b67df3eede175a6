"""Conversion of released checkpoints: names, geometry, the numbers that the releases' own code gave, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from gmml_models.cli import main
from gmml_models.convert.releases import convert_checkpoint, translate
from gmml_models.convert.torch_checkpoint import read_checkpoint
from gmml_models.errors import NotThereError, UnreadableFileError, WrongKeysError
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.encoders import build_encoder

from . import hostile

_CONFORMANCE = Path(__file__).parents[3] / "shared" / "conformance"


def _close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


def _recorded(name: str) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    path = _CONFORMANCE / f"{name}.pth"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with np.load(path.with_suffix(".npz")) as file:
        numbers = {key: torch.from_numpy(file[key]) for key in file.files}
    return path, numbers, json.loads(path.with_suffix(".json").read_text())


def _timm(folder: Path) -> Any:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _decode(weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """The releases' decoder by plain operations, on a square of tokens."""
    for layer in (0, 2, 4):
        tokens = F.gelu(F.linear(tokens, weights[f"decoder.layers.{layer}.weight"], weights[f"decoder.layers.{layer}.bias"]))
    side = int(tokens.shape[1] ** 0.5)
    plane = tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    kernel = weights["decoder.to_pixels.weight"]
    return F.conv_transpose2d(plane, kernel, weights["decoder.to_pixels.bias"], stride=kernel.shape[-1])


@torch.no_grad()
def test_the_gmml_release_is_reproduced(tmp_path: Path) -> None:
    path, numbers, geometry = _recorded("gmml_a")
    folder = convert_checkpoint(path, tmp_path / "out", heads=geometry["num_heads"])
    encoder, weights = _timm(folder), load_file(folder / "decoder.safetensors")
    assert len(encoder.blocks) == geometry["depth"]
    tokens = encoder.forward_features(numbers["x0"])
    _close(tokens, numbers["tokens0"])
    features = encoder.forward_intermediates(numbers["x0"], indices=[5, 7, 9, 11], output_fmt="NLC", intermediates_only=True)
    fused = encoder.norm(torch.stack(features).mean(dim=0))
    _close(fused, numbers["fused0"])
    _close(_decode(weights, fused), numbers["recon0"])


@torch.no_grad()
def test_the_sit_release_is_reproduced_with_its_contrastive_head(tmp_path: Path) -> None:
    path, numbers, geometry = _recorded("sit_a")
    folder = convert_checkpoint(path, tmp_path / "out", heads=geometry["num_heads"])
    tokens, weights = _timm(folder).forward_features(numbers["x0"]), load_file(folder / "decoder.safetensors")
    _close(tokens, numbers["tokens0"])
    _close(_decode(weights, tokens[:, 1:]), numbers["recon0"])
    head = {key.removeprefix("heads.head.mlp."): tensor for key, tensor in weights.items() if key.startswith("heads.head.mlp.")}
    out = tokens[:, 0]
    for linear, norm, activation in ((0, 1, F.relu), (3, 4, F.gelu), (6, 7, None)):
        out = F.linear(out, head[f"{linear}.weight"], head.get(f"{linear}.bias"))
        mean, var = head[f"{norm}.running_mean"], head[f"{norm}.running_var"]
        out = F.batch_norm(out, mean, var, head.get(f"{norm}.weight"), head.get(f"{norm}.bias"))
        out = out if activation is None else activation(out)
    _close(out, numbers["cls0"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["gmml_a", "sit_a"])
def test_our_autoencoder_reproduces_the_release(tmp_path: Path, name: str) -> None:
    path, numbers, geometry = _recorded(name)
    done = translate(read_checkpoint(path), heads=geometry["num_heads"])
    ours = done.config["gmml"]
    model = GMMLAutoencoder(
        done.config["architecture"], **done.config["model_args"], blocks=ours["blocks"], decoder=ours["decoder"]
    ).eval()
    model.encoder.load_state_dict(done.encoder)
    decoder = {key.removeprefix("decoder."): tensor for key, tensor in done.decoder.items() if key.startswith("decoder.")}
    model.decoder.load_state_dict(decoder)
    _close(model(numbers["x0"]), numbers["recon0"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["gmml_a", "sit_a"])
def test_the_folder_loads_as_an_autoencoder(tmp_path: Path, name: str) -> None:
    path, numbers, geometry = _recorded(name)
    folder = convert_checkpoint(path, tmp_path / "out", heads=geometry["num_heads"])
    model = GMMLAutoencoder.from_pretrained(folder).eval()
    _close(model(numbers["x0"]), numbers["recon0"])


def _write(path: Path, value: Any, *, old: bool = False) -> Path:
    path.write_bytes(hostile.saved(value, old=old))
    return path


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("kind", ["gmml", "sit", "mc_ssl"])
def test_the_kind_is_recognised_and_nothing_is_left_out(tmp_path: Path, kind: str, old: bool) -> None:
    checkpoint = hostile.release(kind)
    folder = convert_checkpoint(_write(tmp_path / "a.pth", checkpoint, old=old), tmp_path / "out")
    config = json.loads((folder / "config.json").read_text())
    ours = config["gmml"]
    assert ours["objective"] == kind
    assert ours["network"] == ("SiT_model" if kind == "gmml" else "teacher")
    assert ours["args"]["num_heads"] == 2
    assert ours["args"]["out"] is None  # a path of somebody's machine
    assert ours["source"]["file"] == "a.pth"
    assert len(ours["source"]["sha256"]) == 64
    network = checkpoint[ours["network"]]
    encoder, rest = load_file(folder / "model.safetensors"), load_file(folder / "decoder.safetensors")
    assert len(encoder) + len(rest) == len(network)
    for key, tensor in encoder.items():
        assert torch.equal(tensor, network[f"module.backbone.{key}"])
    for key, tensor in rest.items():
        key = key.removeprefix("heads.")
        for mine, theirs in (("decoder.layers.", "head_recons.mlp."), ("decoder.to_pixels.", "head_recons.convTrans.")):
            key = key.replace(mine, theirs)
        assert torch.equal(tensor, network[f"module.{key}"])
    # MC-SSL's released decoder has two layers with GELU, which none of ours has: it is kept, not loaded under another activation
    assert ours["decoder"] == (None if kind == "mc_ssl" else "release")
    assert _timm(folder)(torch.zeros(1, 3, 4, 4)).shape == (1, 8)


def test_mc_ssl_with_the_papers_decoder_gets_ours() -> None:
    checkpoint = hostile.release("mc_ssl")
    decoder = GMMLAutoencoder(
        "vit_tiny_patch16_224", embed_dim=8, depth=1, num_heads=2, img_size=4, patch_size=2, decoder="mc_ssl"
    ).decoder
    network = {key: tensor for key, tensor in checkpoint["teacher"].items() if "head_recons" not in key}
    for key, tensor in decoder.state_dict().items():
        network["module.head_recons." + key.replace("layers.", "mlp.").replace("to_pixels.", "convTrans.")] = tensor
    done = translate({**checkpoint, "teacher": network, "args": {"num_heads": 2}}, kind="mc_ssl")
    assert done.config["gmml"]["decoder"] == "mc_ssl"
    assert {f"decoder.{key}" for key in decoder.state_dict()} < set(done.decoder)


@pytest.mark.parametrize("kind", ["sit", "mc_ssl"])
def test_the_teacher_is_taken_unless_the_student_is_asked_for(kind: str) -> None:
    checkpoint = {**hostile.release(kind), "args": {"num_heads": 2}}
    for teacher, name in ((None, "teacher"), (True, "teacher"), (False, "student")):
        done = translate(checkpoint, teacher=teacher)
        assert done.config["gmml"]["network"] == name
        assert torch.equal(done.encoder["cls_token"], checkpoint[name]["module.backbone.cls_token"])


def test_names_without_module_and_halves_are_taken() -> None:
    network = {key.removeprefix("module."): tensor.half() for key, tensor in hostile.network().items()}
    done = translate({"SiT_model": network}, heads=2)
    assert all(tensor.dtype == torch.float32 for tensor in done.encoder.values())


def test_other_sizes_are_read_from_the_shapes() -> None:
    network = hostile.network(width=64, patch=4, side=3, depth=7)
    done = translate({"SiT_model": network})
    assert done.config["pretrained_cfg"]["input_size"] == [3, 12, 12]
    assert done.config["gmml"]["blocks"] == [4, 5, 6, 7]
    model: Any = timm.create_model(done.config["architecture"], num_classes=0, **done.config["model_args"])
    assert model.blocks[0].attn.num_heads == 1
    model.load_state_dict(done.encoder)


def test_a_tag_of_weights_that_timm_does_not_know_does_not_matter() -> None:
    network = hostile.network(width=64, patch=4, side=3, depth=7)
    done = translate({"SiT_model": network, "args": {"arch": "vit_tiny_patch16_224.of_another_year"}})
    model: Any = timm.create_model(done.config["architecture"], num_classes=0, **done.config["model_args"])
    assert model.blocks[0].attn.num_heads == 1


def test_arguments_are_kept_as_plain_data() -> None:
    args = {
        "num_heads": 2, "lr": float("nan"), "nested": {"a": [1, {"b": [2, {"c": 3}]}]}, "tensor": torch.zeros(1),
        "long": "x" * 10_000,
        "many": list(range(1000)), "home": "~/x", "bytes": b"x", "windows": "C:\\x", "huge": 1 << 80,
    }  # fmt: skip
    kept = translate({"SiT_model": hostile.network(), "args": args}).config["gmml"]["args"]
    assert len(json.dumps(kept)) < 2000
    assert [kept[key] for key in ("lr", "tensor", "home", "bytes", "windows", "huge")] == [None] * 6
    assert kept["nested"] == {"a": [1, None]}


def _without(*keys: str, **more: Any) -> dict[str, Any]:
    network: dict[str, Any] = {key: tensor for key, tensor in hostile.network().items() if key not in keys}
    return {"SiT_model": network | {key.replace("__", "."): tensor for key, tensor in more.items()}, "args": {"num_heads": 2}}


@pytest.mark.parametrize(
    ("checkpoint", "words"),
    [
        (_without("module.backbone.norm.bias"), "Missing: norm.bias"),
        (_without("module.backbone.pos_embed"), "pos_embed missing"),
        (_without("module.head_recons.mlp.4.bias"), "Missing: layers.4.bias"),
        (_without("module.backbone.blocks.0.attn.qkv.bias"), "blocks.0.attn.qkv.bias"),
        (_without(module__backbone__dist_token=torch.zeros(1, 1, 8)), "Surplus: dist_token"),
        (_without(module__head_recons__mlp__6__weight=torch.zeros(8, 8)), "Surplus: head_recons.mlp.6.weight"),
        (_without(module__backbone__norm__bias=torch.zeros(9)), r"Of another shape: norm.bias is \(9,\), not \(8,\)"),
        (_without(module__backbone__pos_embed=torch.zeros(1, 6, 8)), "6 positions"),
        (_without(module__backbone__pos_embed=torch.zeros(1, 10, 9)), r"pos_embed is \(1, 10, 9\)"),
        (_without(module__backbone__patch_embed__proj__weight=torch.zeros(8, 3, 4, 4)), "to_pixels.weight"),
        (_without(module__backbone__blocks__5__norm1__weight=torch.zeros(8)), "Surplus: blocks.5.norm1.weight"),
        ({"state_dict": {}}, "holds state_dict"),
        ({"model": {}, "epoch": 3}, "holds model, epoch"),
        ({}, "holds nothing"),
    ],
)
def test_other_keys_and_shapes_are_listed(checkpoint: dict[str, Any], words: str) -> None:
    with pytest.raises(WrongKeysError, match=words):
        translate(checkpoint)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(UnreadableFileError, match=r"finite numbers.*norm\.bias"):
        translate(_without(module__backbone__norm__bias=torch.full((8,), value)))


@pytest.mark.parametrize("key", ["module.heads/../x", "module.h\n", "", "module..x", "module.héad"])
def test_odd_names_are_refused(key: str) -> None:
    with pytest.raises(UnreadableFileError, match="names that are invalid"):
        translate({"SiT_model": {**hostile.network(), key: torch.zeros(1)}}, heads=2)


def test_one_name_twice_is_refused() -> None:
    with pytest.raises(UnreadableFileError, match=r"occur twice: backbone\.cls_token"):
        translate({"SiT_model": {**hostile.network(), "backbone.cls_token": torch.zeros(1, 1, 8)}}, heads=2)


def test_options_that_do_not_fit_are_refused() -> None:
    gmml, sit = _without(), {**hostile.release("sit"), "args": {}}
    with pytest.raises(WrongKeysError, match="kind='sit' needs student, teacher"):
        translate(gmml, kind="sit")
    with pytest.raises(WrongKeysError, match="kind='gmml' needs SiT_model"):
        translate(sit, kind="gmml")
    with pytest.raises(ValueError, match="kind='moco' is unknown"):
        translate(gmml, kind="moco")
    with pytest.raises(ValueError, match="has one network"):
        translate(gmml, teacher=True)
    with pytest.raises(WrongKeysError, match=r"no network 'teacher'\. It holds student"):
        translate({"student": sit["student"]}, teacher=True)
    with pytest.raises(ValueError, match="the number of heads is not in the file"):
        translate(sit)
    with pytest.raises(ValueError, match="heads=3"):
        translate(sit, heads=3)
    with pytest.raises(WrongKeysError, match=r"Missing: layers\.4"):
        translate({**hostile.release("mc_ssl"), "args": {}}, kind="sit", heads=2)


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    path, folder = _write(tmp_path / "a.pth", hostile.release("gmml")), tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="is not empty"):
        convert_checkpoint(path, folder)
    with pytest.raises(FileExistsError, match="is a file"):
        convert_checkpoint(path, path)
    convert_checkpoint(path, folder, force=True)
    assert (folder / "notes.txt").read_text() == "mine"


def test_a_file_that_is_refused_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"<html>")
    with pytest.raises(UnreadableFileError, match="web page"):
        convert_checkpoint(tmp_path / "a.pth", tmp_path / "out")
    with pytest.raises(NotThereError):
        convert_checkpoint(tmp_path / "b.pth", tmp_path / "out")
    with pytest.raises(WrongKeysError, match=r"convert_checkpoint: .*c\.pth: .*Missing"):
        convert_checkpoint(_write(tmp_path / "c.pth", _without("module.backbone.norm.bias")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_card_says_whose_weights_these_are(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.pth", hostile.release("gmml"))
    card = (convert_checkpoint(path, tmp_path / "out") / "README.md").read_text()
    assert "Its licence is unknown" in card
    assert "do not\ndistribute" in card
    card = (convert_checkpoint(path, tmp_path / "other", license="mit") / "README.md").read_text()
    assert "according to whoever converted it: mit" in card


def test_the_command_converts_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _write(tmp_path / "a.pth", hostile.release("sit"))
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(path), str(tmp_path / "out"), "--network", "student"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "sit (student)" in said
    assert "head.mlp" in said
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(path), str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "is not empty" in capsys.readouterr().err


def test_an_encoder_alone_is_told_to_have_no_decoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": build_encoder("vit_micro_patch8_64").state_dict()}, tmp_path / "checkpoint.pth")
    with pytest.raises(SystemExit) as ended:
        main(["convert", str(tmp_path / "checkpoint.pth"), str(tmp_path / "out"), "--heads", "4"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  decoder  none" in lines
    assert "  heads    none" in lines
    assert not any(" ," in line for line in lines)


def test_the_command_line_stays_light() -> None:
    code = "import sys; import gmml_models.cli.convert; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
