"""Every loader takes every spelling of a source, and every advice of an error works when it is followed."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gmml_models as gm
from gmml_models.errors import NotThereError, WrongBytesError, WrongKeysError
from gmml_models.models import pretrained
from gmml_models.models.wrappers import without_prefixes

from .hub_server import ROOT, Hub, serving

ZOO = "gmml_vit_micro_patch8_64.openclipart"
COMMIT = "0123456789" * 4


def small(seed: int = 0) -> gm.GMMLAutoencoder:
    torch.manual_seed(seed)
    return gm.GMMLAutoencoder("vit_micro_patch8_64", depth=1, blocks=(1,)).eval()


def images(height: int = 64, width: int = 64, channels: int = 3) -> Tensor:
    return torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    small().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def torch_hub(entry: str) -> Callable[..., Any]:
    return lambda source, **options: torch.hub.load(str(ROOT), entry, source, source="local", **options)


LOADERS: dict[str, Callable[..., Any]] = {
    "from_pretrained": gm.from_pretrained,
    "GMMLAutoencoder": gm.GMMLAutoencoder.from_pretrained,
    "torch.hub encoder": torch_hub("gmml_encoder"),
    "torch.hub autoencoder": torch_hub("gmml_autoencoder"),
}


@pytest.fixture(params=LOADERS)
def load(request: pytest.FixtureRequest) -> Callable[..., Any]:
    return LOADERS[request.param]


def tokens(model: Any, given: Tensor) -> Tensor:
    found: Tensor = getattr(model, "encoder", model).forward_features(given)
    return found


class TestWhatASourceMayBe:
    def test_a_name_of_the_zoo(self, load: Callable[..., Any]) -> None:
        assert torch.equal(tokens(load(ZOO), images()), tokens(gm.create_model(ZOO, pretrained=True), images()))

    def test_a_folder_in_any_spelling(self, load: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        wanted = tokens(small(), images())
        monkeypatch.setenv("HOME", str(folder.parent))
        monkeypatch.chdir(folder.parent)
        for source in (
            folder,
            str(folder),
            "model",
            "./model",
            f"local-dir:{folder}",
            "local-dir:model",
            "~/model",
            Path("~/model"),
        ):
            assert torch.equal(tokens(load(source), images()), wanted), source

    def test_a_folder_of_a_snapshot(self, load: Callable[..., Any], tmp_path: Path) -> None:
        for place in (tmp_path / "snapshots" / COMMIT, tmp_path / COMMIT):
            small().save_pretrained(place)
            assert torch.equal(tokens(load(place), images()), tokens(small(), images()))
            assert timm.create_model(f"local-dir:{place}", pretrained=True) is not None
            with pytest.raises(ValueError, match=r"is a local folder and has no revision='main'\. Leave it out"):
                load(place, revision="main")

    def test_what_is_no_source_is_named(self, load: Callable[..., Any]) -> None:
        for nothing in (None, 3, b"x", ["a/b"]):
            with pytest.raises(TypeError, match=r"source is a (NoneType|int|bytes|list)\. Give a folder, 'owner/name'"):
                load(nothing)
        with pytest.raises(NotThereError, match=r"neither a folder that exists nor a Hub name"):
            load("~/no/such/folder")
        with pytest.raises(NotThereError, match=f"no weights named 'gmml_vit_micro_patch8_64.caltech'.*There are: {ZOO}"):
            load("gmml_vit_micro_patch8_64.caltech")


LOAD = """
import sys
from pathlib import Path
import huggingface_hub, timm, torch
import gmml_models as gm
given = torch.randn(1, 3, 64, 64)
wanted = gm.from_pretrained("hf-hub:someone/small").forward_features(given)
for source in ("someone/small", "hf_hub:someone/small", "hf-hub:someone/small@main"):
    for load in (gm.from_pretrained, lambda source: gm.GMMLAutoencoder.from_pretrained(source).encoder):
        assert torch.equal(load(source).forward_features(given), wanted), source
for options in ({}, {"local_dir": "downloaded"}, {"cache_dir": "elsewhere"}):
    folder = huggingface_hub.snapshot_download("someone/small", **options)
    assert torch.equal(gm.from_pretrained(folder).forward_features(given), wanted), folder
    assert torch.equal(gm.from_pretrained(folder, num_classes=0, drop_path_rate=0.1).forward_features(given), wanted), folder
    assert torch.equal(gm.GMMLAutoencoder.from_pretrained(folder).encoder.forward_features(given), wanted), folder
Path("someone/small").mkdir(parents=True)  # a folder of that name: hf-hub: means the Hub all the same
assert torch.equal(gm.from_pretrained("hf-hub:someone/small").forward_features(given), wanted)
"""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    with serving(tmp_path / "home") as running:
        yield running


def test_snapshots_of_the_real_client_and_names_as_timm_writes_them(hub: Hub, folder: Path, tmp_path: Path) -> None:
    hub.commit("someone/small", "main", {path.name: path.read_bytes() for path in folder.iterdir()})
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        cwd=tmp_path,
        env={**os.environ, **hub.environment()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]


class TestOptions:
    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"num_classes": 10},
            {"drop_path_rate": 0.1},
            {"global_pool": "avg"},
            {"global_pool": "avg", "num_classes": 3},
            {"img_size": 32},
        ],
        ids=str,
    )
    def test_images_of_any_size_with_any_option(self, options: dict[str, Any]) -> None:
        encoder = gm.from_pretrained(ZOO, **options)
        for height, width in ((64, 64), (96, 128), (8, 40)):
            assert encoder(images(height, width)).shape == (1, options.get("num_classes") or 128)
            if "img_size" not in options:
                assert torch.equal(
                    encoder.forward_features(images(height, width)), gm.from_pretrained(ZOO).forward_features(images(height, width))
                )

    def test_one_size_only_for_who_asks_for_it(self) -> None:
        with pytest.raises(AssertionError, match="Input height"):
            gm.from_pretrained(ZOO, dynamic_img_size=False)(images(96, 96))

    def test_the_mean_of_the_patches_by_timms_own_option(self) -> None:
        plain = gm.from_pretrained(ZOO).forward_features(images())
        torch.testing.assert_close(gm.from_pretrained(ZOO, global_pool="avg")(images()), plain[:, 1:].mean(1), rtol=0, atol=1e-6)

    def test_features_of_blocks(self) -> None:
        maps = gm.from_pretrained(ZOO, features_only=True, out_indices=[1, 3])(images(96, 128))
        assert [tuple(one.shape) for one in maps] == [(1, 128, 12, 16)] * 2

    def test_a_misspelt_option_is_named_with_what_was_meant(self) -> None:
        for wrong, meant in (
            ("num_clases", "num_classes"),
            ("image_size", "img_size"),
            ("revison", "revision"),
            ("local_file_only", "local_files_only"),
        ):
            with pytest.raises(TypeError, match=rf"from_pretrained: {wrong}=1 is not an argument .* Did you mean {meant}"):
                gm.from_pretrained(ZOO, **{wrong: 1})  # type: ignore[arg-type]

    def test_what_timm_refuses_is_said_as_an_error_of_ours(self) -> None:
        with pytest.raises(ValueError, match=r"from_pretrained: timm refuses \{'embed_dim': 64\}.*leave them out"):
            gm.from_pretrained(ZOO, embed_dim=64)


class TestSavedAgain:
    """Weights that another program wrote into a folder of ours: by whom, and how they are accepted."""

    @pytest.fixture
    def by_transformers(self, folder: Path, tmp_path: Path) -> Path:
        transformers = pytest.importorskip("transformers")
        model = transformers.AutoModel.from_pretrained(folder)
        with torch.no_grad():
            next(model.parameters()).add_(0.01)
        model.save_pretrained(tmp_path / "tuned")
        return tmp_path / "tuned"

    def test_by_transformers_and_both_advices_work(self, by_transformers: Path) -> None:
        with pytest.raises(WrongBytesError, match=r"transformers 5\..*, as config.json says, saved the weights again") as caught:
            gm.from_pretrained(by_transformers)
        assert "cut short" not in str(caught.value)
        pin = re.search(r"sha256='([0-9a-f]{64})'", str(caught.value))
        assert pin
        wanted = load_file(by_transformers / "model.safetensors")
        for options in ({"verify": False}, {"sha256": pin[1]}, {"sha256": pin[1], "verify": False}):
            encoder = gm.from_pretrained(by_transformers, **options)
            assert torch.equal(encoder.state_dict()["cls_token"], wanted["cls_token"])
            assert gm.from_pretrained(by_transformers, num_classes=3, **options).num_classes == 3

    def test_by_somebody_else(self, folder: Path) -> None:
        for name, what in (
            ("decoder.safetensors", gm.GMMLAutoencoder.from_pretrained),
            ("model.safetensors", gm.GMMLAutoencoder.from_pretrained),
        ):
            save_file({key: tensor + 1 for key, tensor in load_file(folder / name).items()}, folder / name)
            with pytest.raises(
                WrongBytesError, match=r"a program other than gmml saved the weights again.*copy the folder again"
            ) as caught:
                what(folder)
            given = re.search(r"sha256=('[0-9a-f]{64}'|\{.*?\})", str(caught.value))
            assert given
            advice: Any = json.loads(given[1].replace("'", '"'))
            if isinstance(advice, dict):
                assert what(folder, sha256=advice).training is False
            else:
                assert gm.from_pretrained(folder, sha256=advice).training is False
        found, before = (model.state_dict()["encoder.cls_token"] for model in (what(folder, verify=False), small()))
        assert torch.equal(found, before + 1)

    def test_a_pin_holds_whatever_verify_says(self, folder: Path) -> None:
        with pytest.raises(WrongBytesError, match="0" * 64):
            gm.from_pretrained(folder, sha256="0" * 64, verify=False)

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_fsdp_wrapped_module."])
    def test_prefixes_of_wrappers_are_taken_off(self, folder: Path, prefix: str) -> None:
        tensors = {prefix + name: tensor for name, tensor in load_file(folder / "model.safetensors").items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        assert torch.equal(tokens(gm.from_pretrained(folder, verify=False), images()), tokens(small(), images()))


def test_prefixes_are_those_of_wrappers_only() -> None:
    for name in (
        "module.blocks.0.norm1.weight",
        "_orig_mod.blocks.0.norm1.weight",
        "module._orig_mod.module.blocks.0.norm1.weight",
        "_fsdp_wrapped_module.blocks.0._fsdp_wrapped_module.norm1.weight",
        "blocks.0._checkpoint_wrapped_module._orig_mod.norm1.weight",
        "blocks.0.norm1.weight",
    ):
        assert without_prefixes(name) == "blocks.0.norm1.weight"
    assert without_prefixes("head.module.weight") == "head.module.weight"


class TestWhatIsNoPlainModel:
    """Compiled and wrapped parts are saved as what they are; what holds other weights than it seems to is refused by name."""

    @pytest.mark.parametrize("what", ["encoder compiled", "blocks compiled", "blocks checkpointed", "data parallel"])
    def test_wrappers_that_change_nothing(self, what: str, folder: Path, tmp_path: Path) -> None:
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

        model: Any = small()
        if what == "encoder compiled":
            model.encoder = torch.compile(model.encoder, backend="eager")
        elif what == "data parallel":
            model.encoder = nn.DataParallel(model.encoder)
        else:
            wrap = checkpoint_wrapper if "check" in what else lambda block: torch.compile(block, backend="eager")
            model.encoder.blocks[0] = wrap(model.encoder.blocks[0])
        before = [type(part) for part in model.modules()]
        model.save_pretrained(tmp_path / "again")
        assert [type(part) for part in model.modules()] == before
        for name in ("model.safetensors", "decoder.safetensors"):
            assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()

    @staticmethod
    def _with_lora() -> Any:
        model: Any = small()
        layer = model.encoder.blocks[0].attn.qkv
        layer.lora_A, layer.lora_B = nn.Linear(128, 2, bias=False), nn.Linear(2, 384, bias=False)
        return model

    @staticmethod
    def _on_meta() -> Any:
        with torch.device("meta"):
            return small()

    @staticmethod
    def _quantised() -> Any:
        return torch.ao.quantization.quantize_dynamic(small(), {nn.Linear}, dtype=torch.qint8)

    @staticmethod
    def _parametrised() -> Any:
        model = small()
        nn.utils.parametrizations.weight_norm(model.decoder.layers[0])
        return model

    @pytest.mark.filterwarnings("ignore")  # torch's, of quantisation that moves elsewhere
    @pytest.mark.parametrize(
        ("build", "words"),
        [
            ("_on_meta", r"meta device and has no values"),
            ("_quantised", r"is quantised \(torch\.ao\."),
            ("_with_lora", r"adapters that are not merged.*merge_and_unload"),
            ("_parametrised", r"parametrised weights \(weight\).*remove_parametrizations"),
        ],
    )
    def test_other_weights_than_it_seems_are_refused_by_what_they_are(self, build: str, words: str, tmp_path: Path) -> None:
        for make in (lambda model: model, lambda model: gm.Classifier(model.encoder, 3)):
            if build == "_parametrised" and make(small()) is not None and isinstance(make(small()), gm.Classifier):
                continue  # its decoder is parametrised, which a classifier does not have
            with pytest.raises(ValueError, match=f"save_pretrained: .*{words}"):
                make(getattr(self, build)()).save_pretrained(tmp_path / "out")
            assert not (tmp_path / "out").exists()


class TestAdviceIsFollowed:
    def test_remove_parametrizations(self, tmp_path: Path) -> None:
        model = TestWhatIsNoPlainModel._parametrised()
        nn.utils.parametrize.remove_parametrizations(model.decoder.layers[0], "weight")
        model.save_pretrained(tmp_path)
        gm.GMMLAutoencoder.from_pretrained(tmp_path)

    def test_a_tag_that_does_not_exist(self) -> None:
        with pytest.raises(NotThereError, match=r"no weights named 'gmml_vit_micro_patch8_64\.nonsense'") as caught:
            gm.create_model("gmml_vit_micro_patch8_64.nonsense")
        call = re.search(r"for random ones, use create_model\('(\w+)'\)", str(caught.value))
        assert call
        assert gm.create_model(call[1]).img_size == (64, 64)
        assert gm.create_model(ZOO).img_size == (64, 64)  # a tag that there is: random weights of its architecture, as timm has it
        with pytest.raises(TypeError, match=r"name is a NoneType\. Give, for example, 'gmml_vit_small_patch16_224'"):
            gm.create_model(None)  # type: ignore[arg-type]

    def test_options_beside_pretrained(self) -> None:
        with pytest.raises(ValueError, match=re.escape("gmml_models.from_pretrained(name, num_classes=10)")):
            gm.create_model(ZOO, pretrained=True, depth=3)
        assert gm.from_pretrained(ZOO, num_classes=10).num_classes == 10

    def test_a_folder_without_a_decoder(self, tmp_path: Path) -> None:
        gm.Classifier("vit_micro_patch8_64", 3, depth=1).save_pretrained(tmp_path)
        with pytest.raises(WrongKeysError, match=r"Load it with gmml_models\.from_pretrained"):
            gm.GMMLAutoencoder.from_pretrained(tmp_path)
        gm.from_pretrained(tmp_path)
        with pytest.raises(WrongKeysError, match=r"or load its encoder with gmml_models\.from_pretrained"):
            gm.Classifier.from_pretrained(ZOO)
        gm.from_pretrained(ZOO)

    def test_an_encoder_with_a_head(self) -> None:
        vit: Any = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1)
        with pytest.raises(ValueError, match=r"or call encoder\.reset_classifier\(0, 'token'\)"):
            gm.GMMLAutoencoder(vit)
        vit.reset_classifier(0, "token")
        gm.GMMLAutoencoder(vit)

    def test_weights_that_are_not_finite(self, folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["cls_token"] = torch.full_like(tensors["cls_token"], float("nan"))
        save_file(tensors, folder / "model.safetensors")
        from gmml_models.errors import UnreadableFileError
        from gmml_models.hub.folder import read_tensors

        with pytest.raises(UnreadableFileError, match="give finite=False to inspect the weights"):
            gm.from_pretrained(folder, verify=False)
        assert read_tensors(folder / "model.safetensors", finite=False)["cls_token"].isnan().all()

    def test_keys_that_do_not_fit(self, folder: Path) -> None:
        right = copy.deepcopy(json.loads((folder / "config.json").read_text()))
        wrong = {**right, "model_args": {**right["model_args"], "depth": 2}}
        (folder / "config.json").write_text(json.dumps(wrong))
        with pytest.raises(WrongKeysError, match=r"Use the config\.json that belongs to these weights"):
            gm.from_pretrained(folder)
        (folder / "config.json").write_text(json.dumps(right))
        gm.from_pretrained(folder)
        assert pretrained.ENCODER in right["gmml"]["files"]
