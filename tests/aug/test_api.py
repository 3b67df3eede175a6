"""What users rely on: names, keyword-only options, documentation, `patch_mask`, fills of their own, and torch as the only need."""

from __future__ import annotations

import inspect
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import gmml_aug as ga
from tests.helpers import random_images, same_bits, some_keys

ROOT = Path(__file__).resolve().parents[2]
NAMES = {
    "Alien", "Blocks", "Blur", "Boxes", "Cells", "Chain", "Chance", "CollateCorrupt", "Constant", "Corrupted",
    "CorruptedPair", "Corruption", "Fill", "Grey", "InBoxes", "Jitter", "Mean", "Module", "Noise", "OneOf", "Plan", "Scene",
    "Shuffle", "TimmCorrupt", "Zeros", "functional", "keys", "patch_mask", "presets",
}  # fmt: skip

# what may be given by position; all else is keyword-only
POSITIONAL: dict[str, tuple[Any, list[str]]] = {
    **{
        name: (getattr(ga, name), [])
        for name in ("Blocks", "Boxes", "Cells", "Noise", "Zeros", "Constant", "Alien", "Grey", "Blur", "Jitter", "Mean", "Shuffle")
    },
    "InBoxes": (ga.InBoxes, ["boxes", "fill"]),
    "OneOf": (ga.OneOf, ["parts"]),
    "Chain": (ga.Chain, ["parts"]),
    "Module": (ga.Module.__init__, ["self", "corrupt"]),
    "CollateCorrupt": (ga.CollateCorrupt.__init__, ["self", "corrupt"]),
    "TimmCorrupt": (ga.TimmCorrupt.__init__, ["self", "corrupt"]),
    "call": (ga.Corruption.__call__, ["self", "images"]),
    "from_bytes": (ga.Corruption.from_bytes, ["self", "images"]),
    "sample": (ga.Corruption.sample, ["self", "shape"]),
    "apply": (ga.Corruption.apply, ["self", "images", "plan"]),
    "kinds": (ga.Corruption.kinds, ["self", "plan"]),
    "keys": (ga.keys, ["seed", "epoch", "index"]),
    "patch_mask": (ga.patch_mask, ["mask", "patch_size"]),
    **{f"presets.{name}": (getattr(ga.presets, name), []) for name in ga.presets.names()},
}


def test_no_public_name_is_lost_and_there_are_less_than_forty() -> None:
    assert set(ga.__all__) >= NAMES
    assert len(ga.__all__) == len(set(ga.__all__)) < 40
    assert list(ga.__all__) == sorted(ga.__all__)
    assert all(hasattr(ga, name) for name in ga.__all__)


@pytest.mark.parametrize("name", POSITIONAL)
def test_options_are_keyword_only(name: str) -> None:
    function, positional = POSITIONAL[name]
    parameters = inspect.signature(function).parameters.values()
    assert [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY] == positional
    assert all(p.kind is not inspect.Parameter.VAR_KEYWORD for p in parameters)


@pytest.mark.parametrize("name", ga.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    thing = getattr(ga, name)
    text = inspect.getdoc(thing) or ""
    assert len(text) > 20
    assert not text.startswith(f"{name}(")  # what dataclass and NamedTuple write by themselves
    if inspect.isclass(thing):
        for label, member in vars(thing).items():
            if not label.startswith("_") and (inspect.isfunction(member) or isinstance(member, property)):
                assert inspect.getdoc(getattr(thing, label)), f"{name}.{label}"
    if inspect.ismodule(thing):
        for label, member in vars(thing).items():
            if not label.startswith("_") and inspect.isfunction(member) and member.__module__ == thing.__name__:
                assert member.__doc__, f"{name}.{label}"


@pytest.mark.parametrize("name", ["Noise", "Zeros", "Constant", "Alien", "Grey", "Blur", "Boxes"])
def test_every_fill_names_its_source(name: str) -> None:
    assert "Source:" in (inspect.getdoc(getattr(ga, name)) or "")


def test_the_result_is_a_pair_with_names(device: torch.device) -> None:
    result = ga.Noise()(random_images((2, 3, 8, 8)).to(device))
    images, mask = result
    assert images is result.images
    assert mask is result.mask
    assert isinstance(result, ga.Corrupted)


@dataclass(frozen=True)
class Negative(ga.Fill):
    """The example in the documentation of `Fill`, with a strength drawn per image."""

    replaces: ClassVar[bool] = False

    def draw(self, chance: ga.Chance) -> tuple[Tensor, ...]:
        return tuple(chance.uniform(2).unbind(1))

    def pixels(self, scene: ga.Scene, drawn: tuple[Tensor, ...]) -> Tensor:
        return -scene.now * (1.0 + drawn[0].reshape(-1, *[1] * (scene.now.ndim - 1)))


@dataclass(frozen=True)
class Clean(ga.Fill):
    """Undoes what earlier steps did."""

    def pixels(self, scene: ga.Scene, drawn: tuple[Tensor, ...]) -> Tensor:
        return scene.clean


@pytest.mark.parametrize("batch", [1, 5])
def test_a_fill_of_ones_own_is_a_few_lines(batch: int, tmp_path: Path) -> None:
    images = random_images((batch, 3, 20, 20)).abs() + 0.1
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.5), Negative())
    plan = corrupt.sample(images.shape, keys=some_keys(batch))
    found, mask = corrupt.apply(images, plan)
    assert torch.equal((found < 0), mask.expand_as(found))
    pytest.importorskip("safetensors")
    plan.save(tmp_path / "plan.safetensors")
    assert same_bits(corrupt.apply(images, ga.Plan.load(tmp_path / "plan.safetensors")).images, found)


def test_a_fill_may_look_at_the_clean_images_even_in_place(device: torch.device) -> None:
    images = random_images((4, 3, 20, 20)).to(device)
    corrupt = ga.Chain([ga.Noise(), Clean()])
    assert same_bits(corrupt(images).images, images)
    written = images.clone()
    assert same_bits(corrupt(written, out=written).images, images)


@pytest.mark.parametrize(("size", "patch"), [((32, 48), 16), ((37, 50), 16), ((30,), 7), ((9, 10, 11), (4, 5, 3))], ids=str)
def test_patch_mask_is_the_share_over_each_patchs_own_pixels(
    size: tuple[int, ...], patch: int | tuple[int, ...], device: torch.device
) -> None:
    mask = (torch.rand(3, 1, *size) < 0.4).to(device)
    share = ga.patch_mask(mask, patch)
    sides = (patch,) * len(size) if isinstance(patch, int) else patch
    assert share.shape == (3, *(-(-length // side) for length, side in zip(size, sides, strict=True)))
    for index in torch.cartesian_prod(*[torch.arange(n) for n in share.shape[1:]]).reshape(-1, len(size)).tolist():
        part = tuple(slice(i * side, (i + 1) * side) for i, side in zip(index, sides, strict=True))
        for image in range(3):
            assert abs(float(share[(image, *index)]) - float(mask[image, 0][part].float().mean())) < 1e-6


def test_patch_mask_speaks_the_forms_of_models() -> None:
    mask = torch.zeros(2, 1, 32, 48, dtype=torch.bool)
    mask[0, :, :16, :16] = True
    mask[1, :, 16:, 40:] = True
    assert ga.patch_mask(mask, 16, form="bool").tolist() == [
        [[True, False, False], [False, False, False]],
        [[False, False, False], [False, False, True]],
    ]
    assert ga.patch_mask(mask, 16, form="flat").shape == (2, 6)
    assert ga.patch_mask(mask, 16, form="flat", threshold=1.0).sum().item() == 1
    whole = torch.ones(2, 1, 33, 50, dtype=torch.bool)
    assert ga.patch_mask(whole, 16, form="bool", threshold=1.0).all()


ALONE = """
import importlib.abc, pathlib, re, sys, warnings

NEEDS = {"torch", "torchgen", "functorch", "gmml_aug"}
OF_TORCH = {"typing_extensions", "filelock", "fsspec", "jinja2", "markupsafe", "mpmath", "networkx", "sympy", "triton"}

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in sys.stdlib_module_names | NEEDS | OF_TORCH:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
warnings.filterwarnings("ignore", message=".*NumPy.*")
try:
    import numpy
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("numpy is not blocked")

import torch
import gmml_aug as ga

corrupt = ga.presets.gmml()
images, mask = corrupt(torch.randn(4, 3, 64, 64))
assert mask.shape == (4, 1, 64, 64) and mask.dtype == torch.bool
print(corrupt)

readme = pathlib.Path(sys.argv[1])
if readme.is_file():
    weight = torch.ones((), requires_grad=True)
    names = {
        "torch": torch, "loader": [torch.randn(4, 3, 224, 224)], "device": "cpu", "model": lambda images: images * weight,
        "g": torch.Generator().manual_seed(0), "seed": 0, "epoch": 1, "index": torch.arange(4), "bank": torch.randn(8, 3, 224, 224),
    }
    blocks = re.findall(r"```python\\n(.*?)```", readme.read_text(encoding="utf-8"), re.S)
    for block in blocks:
        if "gmml_models" not in block:
            exec(compile(block, "README.md", "exec"), names)
    print(len(blocks), "blocks")
"""


def test_torch_is_all_that_it_needs_and_the_readme_runs() -> None:
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(ALONE), str(ROOT / "README.md")],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.startswith("Chain([")


def test_a_name_that_is_neither_here_nor_an_adapter_is_an_error() -> None:
    with pytest.raises(AttributeError, match=r"gmml_aug.*torchvison_adapter"):
        ga.torchvison_adapter  # type: ignore[attr-defined]  # noqa: B018


def test_importing_it_does_not_start_the_compiler() -> None:
    code = "import sys, torch; before = set(sys.modules); import gmml_aug; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT, timeout=300)
    loaded = run.stdout.split()
    assert not [
        name for name in loaded if name.partition(".")[0] in {"numpy", "torchvision", "kornia", "safetensors", "timm", "triton"}
    ]
    assert "torch._dynamo" not in loaded
    assert "torch._inductor" not in loaded
