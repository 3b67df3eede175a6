"""The compiled core against the reference: plans and masks to the bit, images within rounding."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import gmml_aug as ga
from gmml_aug.backends.cpu import layout, library
from gmml_aug.backends.cpu import paint as cpu_paint
from gmml_aug.backends.cpu import plan as cpu_plan
from gmml_aug.backends.cpu.build import FOLDER, compile_core, compiler, files, machine
from tests.helpers import DTYPES, LAYOUTS, lay_out, leaves, random_bits, random_images, same_bits, some_keys
from tests.strategies import every_tree

pytestmark = pytest.mark.skipif(isinstance(library.library(), str), reason=str(library.library()))

STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PRESETS = ["gmml", "gmml_reference", "sit", "mc_ssl", "mae", "simmim", "beit", "ibot"]
# what a rounding on the other side changes: one step of the dtype, for values up to 8
ROUNDING = {torch.float32: 1e-5, torch.float64: 1e-6, torch.float16: 8e-3, torch.bfloat16: 7e-2, torch.uint8: 1}


@pytest.fixture
def worth_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every call is worth all threads."""
    monkeypatch.setattr(library, "_WORTH", 1.0)
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def assert_same_plan(one: ga.Plan, other: ga.Plan) -> None:
    mine, theirs = leaves(one), leaves(other)
    assert len(mine) == len(theirs)
    assert all(same_bits(a, b) for a, b in zip(mine, theirs, strict=True))
    names = ("steps", "shape", "donors", "bank", "fingerprint", "resolved")
    assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]


def assert_close(one: Tensor, other: Tensor) -> None:
    assert (one.dtype, one.shape, one.stride()) == (other.dtype, other.shape, other.stride())
    torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=ROUNDING[one.dtype], equal_nan=True)


def compare(tree: ga.Corruption, images: Tensor, keys: Tensor, bank: Tensor | None = None, **options: Any) -> None:
    """Sample and apply by both backends, and call one that does both at once."""
    donors = None if bank is None else len(bank)
    wanted = tree.sample(images.shape, keys=keys, bank=donors, backend="reference")
    plan = tree.sample(images.shape, keys=keys, bank=donors, backend="cpu")
    assert_same_plan(plan, wanted)
    before = images.clone()
    one = tree.apply(images, plan, donors=bank, backend="cpu", **options)
    other = tree.apply(images, plan, donors=bank, backend="reference", **options)
    assert same_bits(images, before)
    assert torch.equal(one.mask, other.mask)
    assert_close(one.images, other.images)
    kept = ~one.mask.expand_as(images)
    assert same_bits(one.images[kept], images[kept])
    call = tree(images, keys=keys, donors=bank, backend="cpu", **options)  # plans each image just before it is painted
    assert same_bits(call.images, one.images)
    assert torch.equal(call.mask, one.mask)


@st.composite
def calls(draw: st.DrawFn) -> tuple[ga.Chain, Tensor, Tensor, dict[str, Tensor]]:
    """A tree, images, keys and maps."""
    dims = draw(st.integers(1, 3))
    tree = draw(every_tree(dims=dims))
    size = draw(st.lists(st.integers(4, {1: 200, 2: 80, 3: 14}[dims]), min_size=dims, max_size=dims))
    shape = (draw(st.integers(2, 4)), draw(st.integers(1, 5)), *size)
    seed = draw(st.integers(0, 1 << 30))
    images = lay_out(random_images(shape, draw(st.sampled_from(DTYPES)), seed), draw(st.sampled_from(LAYOUTS)))
    given: dict[str, Tensor] = {}
    for name, share in (("allowed", 0.7), ("forced", 0.2)):
        if draw(st.booleans()):
            generator = torch.Generator().manual_seed(seed)
            given[name] = torch.rand(draw(st.sampled_from([1, shape[0]])), 1, *size, generator=generator) < share
    if draw(st.booleans()):
        given["bank"] = random_images((3, *shape[1:]), images.dtype, seed + 1)
    return tree, images, some_keys(shape[0], seed), given


@settings(max_examples=150)
@given(calls())
def test_every_tree_gives_what_the_reference_gives(call: tuple[ga.Chain, Tensor, Tensor, dict[str, Tensor]]) -> None:
    tree, images, keys, given = call
    compare(tree, images, keys, **given)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(calls())
def test_ten_thousand_trees_give_what_the_reference_gives(call: tuple[ga.Chain, Tensor, Tensor, dict[str, Tensor]]) -> None:
    tree, images, keys, given = call
    compare(tree, images, keys, **given)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_gives_what_the_reference_gives(preset: str, dtype: torch.dtype) -> None:
    compare(getattr(ga.presets, preset)(values=STATISTICS), random_images((5, 3, 96, 70), dtype), some_keys(5))


@pytest.mark.parametrize("form", LAYOUTS)
@pytest.mark.parametrize("shape", [(3, 3, 64, 65), (2, 5, 1, 130), (2, 3, 20, 9, 33), (4, 2, 300), (2, 3, 2, 3)], ids=str)
def test_any_layout_and_number_of_axes(shape: tuple[int, ...], form: str) -> None:
    dims = len(shape) - 2
    tree = ga.Chain(
        [
            ga.InBoxes(ga.Boxes(ratio=0.4, side=(0.3, 0.6), dims=dims), ga.OneOf([ga.Noise(), ga.Alien(same_place=False)])),
            ga.InBoxes(ga.Boxes(count=3, side=(0.2, 0.7), dims=dims), ga.Grey()),
            ga.InBoxes(ga.Boxes(count=2, side=(0.3, 0.9), invert=True, dims=dims), ga.Blur(sigma=(0.5, 40.0), kernel=(3, 255))),
        ],
        budget=0.3,
    )
    compare(tree, lay_out(random_images(shape), form), some_keys(shape[0]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("form", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("bank", [False, True])
def test_from_bytes_is_the_reference_s(form: str, dtype: torch.dtype, bank: bool) -> None:
    fills = [ga.Noise(), ga.Alien(), ga.Shuffle(), ga.Mean(), ga.Noise(distribution="matched"), ga.Jitter(), ga.Grey(), ga.Blur()]
    some = ga.Boxes(ratio=0.2)
    tree = ga.Chain([ga.InBoxes(some, fill) for fill in fills], values=STATISTICS)
    images = lay_out(random_images((4, 3, 40, 50), torch.uint8), form)
    donors = random_images((6, 3, 40, 50), torch.uint8, 1) if bank else None
    one, other = (
        tree.from_bytes(images, keys=some_keys(4), donors=donors, dtype=dtype, backend=name) for name in ("cpu", "reference")
    )
    assert torch.equal(one.mask, other.mask)
    assert same_bits(one.clean, other.clean)
    assert_close(one.images, other.images)
    alone = tree.from_bytes(images, keys=some_keys(4), donors=donors, dtype=dtype, backend="cpu", clean=False)
    assert same_bits(alone.images, one.images)
    assert torch.equal(alone.mask, one.mask)


@pytest.mark.usefixtures("worth_threads")
@pytest.mark.parametrize("shape", [(1, 3, 130, 90), (2, 3, 64, 64), (5, 3, 33, 40), (1, 2, 12, 20, 30), (1, 2, 1000)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8], ids=str)
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    dims = len(shape) - 2
    boxes = ga.Boxes(ratio=0.4, side=(0.2, 0.6), dims=dims)
    fills = [ga.Noise(), ga.Shuffle(), ga.Blur(sigma=2.0, kernel=9), ga.Grey(), ga.Jitter(), ga.Blur(), ga.Mean()]
    tree = ga.Chain([ga.InBoxes(boxes, fill) for fill in fills], values="unit", dims=dims)
    images, keys = random_images(shape, dtype), some_keys(shape[0])
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found.append((tree(images, keys=keys, backend="cpu"), tree.sample(shape, keys=keys, backend="cpu")))
        if dtype == torch.uint8:
            wanted = tree.from_bytes(images, keys=keys, backend="cpu").images
            assert same_bits(wanted, tree.from_bytes(images, keys=keys).images)
            assert same_bits(wanted, tree.from_bytes(images, keys=keys, backend="cpu", clean=False).images)
    for (images_of, mask), plan in found[1:]:
        assert same_bits(images_of, found[0][0].images)
        assert torch.equal(mask, found[0][0].mask)
        assert_same_plan(plan, found[0][1])


@pytest.mark.parametrize(
    ("tree", "options", "at_once"),
    [
        (ga.presets.gmml(), {}, True),
        (ga.presets.gmml(budget=0.4), {"allowed": torch.ones(1, 1, 40, 50, dtype=torch.bool)}, True),
        (ga.presets.gmml_reference(), {"donors": torch.zeros(2, 3, 40, 50)}, True),
        (ga.presets.gmml(), {"ratios": [0.1] * 6}, False),
        (ga.presets.gmml(), {"lengths": [30] * 6}, False),
        (ga.presets.mc_ssl(values=STATISTICS), {}, False),  # jitter is asked for its pixels
    ],
    ids=["gmml", "budget", "bank", "ratios", "lengths", "jitter"],
)
def test_a_call_makes_no_plan_of_the_batch_unless_it_must(
    tree: ga.Corruption, options: dict[str, Any], at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[int] = []
    core = library.library()

    class Watched:
        """The core, which says when a plan is handed to it."""

        def __getattr__(self, name: str) -> Any:
            if name == "gmml_check":
                checked.append(1)
            return getattr(core, name)

    watched = Watched()
    monkeypatch.setattr(cpu_paint, "library", lambda: watched)
    images, keys = random_images((6, 3, 40, 50)), some_keys(6)
    made = tree(images, keys=keys, backend="cpu", **options)
    assert bool(checked) is not at_once
    donors, shares = options.get("donors"), {k: v for k, v in options.items() if k in ("ratios", "lengths")}
    plan = tree.sample(images.shape, keys=keys, bank=None if donors is None else len(donors), **shares)
    wanted = tree.apply(images, plan, donors=donors, allowed=options.get("allowed"))
    assert same_bits(made.images, wanted.images)
    assert torch.equal(made.mask, wanted.mask)


def test_an_image_is_the_same_in_any_part_of_a_batch() -> None:
    tree = ga.presets.gmml(values=STATISTICS)
    images = random_images((7, 3, 50, 60))
    plan = tree.sample(images.shape, keys=some_keys(7), backend="cpu")
    whole = tree.apply(images, plan, backend="cpu")
    for part in (slice(0, 3), slice(3, 7), slice(0, 7, 2)):
        some = tree.apply(images[part], plan[part], donors=images, backend="cpu")
        assert same_bits(some.images, whole.images[part])
        assert torch.equal(some.mask, whole.mask[part])


HOLED = {
    "mean": ga.Mean(),
    "matched": ga.Noise(distribution="matched"),
    "jitter": ga.Jitter(brightness=0.3, contrast=0.4),
    "grey": ga.Grey(),
    "noise": ga.Noise(),
    "alien": ga.Alien(),
    "shuffle": ga.Shuffle(),
    "blur": ga.Blur(sigma=(0.5, 3.0), kernel=(3, 15)),
    "constant": ga.Constant(value=(-1.0, 1.0)),
}


def with_holes(images: Tensor, hole: float) -> Tensor:
    """All images but the second get holes: a pixel, a line of one channel, a whole channel."""
    holed = images.clone()
    holed[0, :, 3, 5] = holed[2, 1, 7] = holed[3, 0] = hole
    return holed


@pytest.mark.parametrize("hole", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("fill", HOLED)
def test_holes_follow_the_reference_s_rule(fill: str, dtype: torch.dtype, hole: float) -> None:
    """NaN in statistics, blurs, colours and budgets: the same numbers are NaN, the others are as close as ever."""
    boxes, keys = ga.Boxes(ratio=0.3, side=(0.1, 0.4)), some_keys(4)
    images, bank = (random_images((4, 3, 20, 26), dtype, seed) for seed in (0, 1))
    holed = with_holes(images, hole)
    for values in ("unit", STATISTICS):
        steps = [ga.InBoxes(boxes, one) for one in (HOLED[fill], ga.Alien(), ga.Blur())]
        tree = ga.Chain(steps, budget=0.4, values=values)
        for batch, donors in ((holed, None), (images, with_holes(bank, hole)), (holed, bank)):
            compare(tree, batch, keys, donors)


@pytest.mark.parametrize("fill", HOLED)
def test_holes_of_others_move_no_bit_of_an_image(fill: str) -> None:
    images, keys = random_images((4, 3, 40, 48)), some_keys(4)
    tree = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.3), HOLED[fill]), ga.InBoxes(ga.Boxes(ratio=0.3), ga.Blur())])
    bank = random_images(images.shape, seed=1)
    plain, holed = (tree(batch, keys=keys, donors=bank, backend="cpu") for batch in (images, with_holes(images, math.nan)))
    assert torch.equal(plain.mask, holed.mask)
    assert same_bits(plain.images[1], holed.images[1])


@pytest.mark.skipif(machine() != "x86_64", reason="one variant")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_variants_give_the_same_bits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    best = Path(library.library()._name).name
    found = []
    for name in files():
        core = library.load(FOLDER / name)
        for module in (cpu_paint, cpu_plan):
            monkeypatch.setattr(module, "library", lambda core=core: core)
        for tree in (
            ga.presets.gmml(values=STATISTICS),
            ga.Chain([ga.Noise(distribution="matched"), ga.Grey(), ga.Blur(sigma=5.0)]),
        ):
            images, keys = random_images((4, 3, 70, 90), dtype), some_keys(4)
            made = tree(images, keys=keys, backend="cpu")
            found.append((type(tree.parts[0]), made, tree.sample(images.shape, keys=keys, backend="cpu")))
        if name == best:
            break  # this machine does not know what comes after
    for kind, made, plan in found[2:]:
        first = next(one for one in found if one[0] is kind)
        assert same_bits(made.images, first[1].images)
        assert_same_plan(plan, first[2])


def test_the_structs_are_those_of_the_header() -> None:
    header = (FOLDER / "core.h").read_text()
    kinds = {"i64": "c_long", "double": "c_double"}
    for struct in layout.STRUCTS:
        found = re.search(rf"typedef struct \{{((?:(?!typedef).)*?)\}} {struct.__name__};", header, re.DOTALL)
        assert found is not None
        fields = []
        for line in re.sub(r"//[^\n]*", "", found[1]).split(";"):
            if line.strip():
                kind = re.sub(r"^const ", "", line.strip()).split()[0]
                for name in line.strip().removeprefix("const ").removeprefix(kind).split(","):
                    pointer, length = "*" in name, re.search(r"\[(\d+)\]", name)
                    plain = re.sub(r"[\s*]|\[\d+\]", "", name)
                    fields.append((plain, "c_void_p" if pointer else kinds[kind] + (f"_Array_{length[1]}" if length else "")))
        mine: list[Any] = list(struct._fields_)
        assert [(name, kind.__name__.replace("c_longlong", "c_long")) for name, kind in mine] == fields
        assert all(ctypes.sizeof(kind) % 8 == 0 for _, kind in mine)


def damaged(plan: ga.Plan, what: str) -> ga.Plan:
    boxes, drawn = [one.clone() for one in plan.boxes], [tuple(one.clone() for one in step) for step in plan.drawn]
    if what == "start":
        boxes[1][2, 0, 0] = 1 << 20
    elif what == "negative":
        boxes[0][0, 3, 1] = -1
    elif what == "size":
        boxes[2][1, 0, 2] = 1000
    elif what == "donor":
        drawn[1][0][3] = 4
    elif what == "shift":
        drawn[4][0][0, 1] = 50
    elif what == "taps":
        drawn[3][1][0] = 1 << 40
    elif what == "sigma":
        drawn[3][0][1] = float("nan")
    elif what == "columns":
        boxes[0] = boxes[0][..., :3]
    elif what == "count":
        drawn[0] = (drawn[0][0][:2],)
    elif what == "missing":
        drawn[3] = drawn[3][:1]
    return replace(plan, boxes=tuple(boxes), drawn=tuple(drawn))


@pytest.mark.parametrize(
    "what", ["start", "negative", "size", "donor", "shift", "taps", "sigma", "columns", "count", "missing", "nothing"]
)
def test_a_damaged_plan_is_an_error(what: str) -> None:
    tree = ga.Chain([*ga.presets.gmml(values=STATISTICS).parts, ga.InBoxes(ga.Boxes(count=2), ga.Shuffle())])
    images = random_images((4, 3, 40, 50))
    plan = damaged(tree.sample(images.shape, keys=some_keys(4), backend="cpu"), what)
    if what == "nothing":
        tree.apply(images, plan, backend="cpu")
        return
    with pytest.raises(ValueError, match="damaged"):
        tree.apply(images, plan, backend="cpu")


@settings(max_examples=100)
@given(seed=st.integers(0, 1 << 30), dtype=st.sampled_from([torch.int32, torch.int64]))
def test_random_numbers_for_a_plan_are_an_error_or_harmless(seed: int, dtype: torch.dtype) -> None:
    tree = ga.Chain([*ga.presets.gmml(values=STATISTICS).parts, ga.InBoxes(ga.Boxes(count=2), ga.Shuffle())])
    images = random_images((2, 3, 20, 30))
    plan = tree.sample(images.shape, keys=some_keys(2), backend="cpu")
    boxes = [random_bits(one.shape, dtype, seed + n) for n, one in enumerate(plan.boxes)]
    if seed % 3 == 0:
        boxes = [one % 31 for one in boxes]
    drawn = [tuple(random_bits(one.shape, one.dtype, seed) % (7 if seed % 2 else 1 << 62) for one in step) for step in plan.drawn]
    with contextlib.suppress(ValueError):
        tree.apply(images, replace(plan, boxes=tuple(boxes), drawn=tuple(drawn)), backend="cpu")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numbers_that_are_none_stay_where_they_are(dtype: torch.dtype) -> None:
    images = random_images((3, 3, 40, 40), dtype)
    if dtype != torch.uint8:
        images[:, :, ::7, 3] = float("inf")
        images[1, 1, 5, ::5] = float("-inf")
        images[0, 2, 11, 11] = float("nan")
    boxes = ga.Boxes(count=2, side=(0.2, 0.5))
    tree = ga.Chain([ga.InBoxes(boxes, ga.Blur(sigma=(0.1, 3.0), kernel=(3, 31))), ga.InBoxes(boxes, ga.Grey())])
    compare(tree, images, some_keys(3))


@dataclass(frozen=True)
class Negative(ga.Fill):
    """A fill of somebody's own."""

    def draw(self, chance: ga.Chance) -> tuple[Tensor, ...]:
        return (chance.uniform(1)[:, 0],)

    def pixels(self, scene: ga.Scene, drawn: tuple[Tensor, ...]) -> Tensor:
        return -scene.now * drawn[0][:, None, None, None].to(scene.now.dtype)


@dataclass(frozen=True, kw_only=True)
class Left(ga.Place):
    """A place whose shape is no box."""

    ratio: float

    def words(self, size: Sequence[int]) -> int:
        return 1

    def order(self, words: Tensor, size: Sequence[int]) -> Tensor:
        return torch.arange(size[-1], device=words.device).expand(len(words), *size)

    def levels(self, size: Sequence[int]) -> int:
        return size[-1]


def test_fills_and_places_of_one_s_own_work_between_the_operations() -> None:
    some = ga.Boxes(ratio=0.3)
    tree = ga.Chain(
        [
            ga.InBoxes(some, Negative(), p=0.5),
            ga.InBoxes(some, ga.Noise()),
            ga.InBoxes(Left(ratio=0.3), ga.OneOf([ga.Alien(), Negative()])),
            ga.InBoxes(some, ga.Blur()),
            Negative(),
        ],
        budget=0.7,
    )
    compare(tree, random_images((6, 3, 30, 30)), some_keys(6))
    compare(tree, random_images((6, 3, 30, 30)), some_keys(6), forced=torch.rand(6, 1, 30, 30) < 0.1)


def test_a_function_registered_for_the_cpu_is_used() -> None:
    @dataclass(frozen=True)
    class Twice(ga.Fill):
        def pixels(self, scene: ga.Scene, drawn: tuple[Tensor, ...]) -> Tensor:
            raise AssertionError

    ga.register_operation(Twice, "cpu", lambda fill, scene, drawn: scene.now * 2)
    images = random_images((2, 3, 8, 8))
    assert torch.equal(Twice()(images, backend="cpu").images, images * 2)


@pytest.mark.parametrize("options", [{"ratios": [0.1, 0.3, 0.2]}, {"lengths": [30, 50, 41]}], ids=str)
def test_shares_and_lengths_of_the_call_are_the_reference_s(options: dict[str, Any]) -> None:
    tree, images = ga.presets.gmml(values=STATISTICS), random_images((3, 3, 40, 50))
    one, other = (tree(images, keys=some_keys(3), backend=name, **options) for name in ("cpu", "reference"))
    assert torch.equal(one.mask, other.mask)
    assert_close(one.images, other.images)


@pytest.mark.parametrize("form", LAYOUTS[:4])
@pytest.mark.parametrize("target", LAYOUTS[:4])
def test_a_buffer_of_any_layout_takes_the_result(form: str, target: str) -> None:
    tree = ga.presets.gmml(values=STATISTICS)
    images, buffer = lay_out(random_images((3, 3, 20, 30)), form), lay_out(torch.zeros(3, 3, 20, 30), target)
    wanted, version = tree(images, keys=some_keys(3), backend="reference"), buffer._version
    made = tree(images, keys=some_keys(3), out=buffer, backend="cpu")
    assert made.images is buffer
    assert buffer._version > version
    torch.testing.assert_close(buffer, wanted.images, rtol=0, atol=1e-5)
    tree(images, keys=some_keys(3), out=images, backend="cpu")
    torch.testing.assert_close(images, wanted.images, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:FutureWarning")
def test_what_the_core_cannot_do_says_why() -> None:
    tree, images = ga.presets.gmml(values=STATISTICS), random_images((2, 3, 20, 20))
    with pytest.raises(ValueError, match="no gradients"):
        tree(images.clone().requires_grad_(), backend="cpu")
    with pytest.raises(ValueError, match="on the CPU, not on meta"):
        tree.sample(images.shape, device="meta", backend="cpu")
    plan = tree.sample(images.shape)
    with pytest.raises(ValueError, match="function transforms"):
        torch.func.vmap(lambda one: tree.apply(one, plan, backend="cpu").images)(images[None])
    made = torch.func.jvp(lambda one: tree.apply(one, plan).images, (images,), (torch.ones_like(images),))
    assert made[1].abs().max() > 0


def test_a_missing_or_an_old_core_says_what_to_do(tmp_path: Path) -> None:
    assert "python -m gmml_aug.backends.cpu.build" in library.load(tmp_path / "none.so")
    (tmp_path / "other.so").write_bytes(b"no library")
    assert "cannot be loaded" in library.load(tmp_path / "other.so")


def test_python_in_a_clone_takes_the_core_of_the_installed_package(tmp_path: Path) -> None:
    package, installed = FOLDER.parents[2], tmp_path / "site" / "gmml_aug" / "backends" / "cpu" / "core"
    shutil.copytree(package, tmp_path / "clone" / "gmml_aug", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    installed.mkdir(parents=True)
    for name in files():
        shutil.copy(FOLDER / name, installed)
    about = tmp_path / "site" / "gmml-0.1.dist-info" / "METADATA"
    about.parent.mkdir()
    about.write_text("Metadata-Version: 2.1\nName: gmml\nVersion: 0.1\n")
    ask = "import gmml_aug; from gmml_aug.backends.cpu.library import library as of; print(gmml_aug.__file__); print(of())"

    def said() -> list[str]:
        paths = os.pathsep.join([str(tmp_path / "clone"), str(tmp_path / "site")])
        alone = {name: value for name, value in os.environ.items() if name != "GMML_CORE"}
        done = subprocess.run(
            [sys.executable, "-c", ask],
            cwd=tmp_path,
            env={**alone, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.splitlines()

    assert said()[0] == str(tmp_path / "clone" / "gmml_aug" / "__init__.py")
    assert str(installed) in said()[1]
    (tmp_path / "clone" / "gmml_aug" / "backends" / "cpu" / "core" / "more.h").write_text("// not in what was compiled\n")
    assert "not built from the sources installed here" in said()[1]
    shutil.rmtree(tmp_path / "site")
    assert "there is no compiled core" in said()[1]


_FORKED = """
import os, sys, torch, gmml_aug as ga
from gmml_aug.backends.cpu import library
library._WORTH = 1.0
torch.set_num_threads(2)
tree, images, keys = ga.presets.gmml(), torch.randn(6, 3, 40, 40), ga.keys(0, 0, range(6))
wanted = tree(images, keys=keys, backend="cpu")
child = os.fork()
if child == 0:
    made = tree(images, keys=keys, backend="cpu")
    os._exit(0 if torch.equal(made.images, wanted.images) else 1)
assert os.waitpid(child, 0)[1] == 0
assert torch.equal(tree(images, keys=keys, backend="cpu").images, wanted.images)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKED], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


_SANITISED = """
import sys, torch
from hypothesis import given, settings, HealthCheck
from tests.aug import test_cpu_core as core
assert core.library.load is not None and not isinstance(core.library.library(), str), core.library.library()
core.library._WORTH = 1.0
for threads in (1, 3):
    torch.set_num_threads(threads)
    settings(max_examples=400, deadline=None, database=None)(given(core.calls())(lambda call: core.compare(*call[:3], **call[3])))()
core.test_random_numbers_for_a_plan_are_an_error_or_harmless()
for what in ("start", "size", "donor", "shift", "taps"):
    core.test_a_damaged_plan_is_an_error(what)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the sanitizers are loaded as on Linux")
def test_the_sanitizers_have_nothing_to_say(tmp_path: Path) -> None:
    flags = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
    core = compile_core(tmp_path, flags)[0]
    command = compiler()
    assert command is not None
    asan = subprocess.run([*command, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()
    cxx = subprocess.run([*command, "-print-file-name=libstdc++.so.6"], capture_output=True, text=True, check=True).stdout.strip()
    environment = {**os.environ, "GMML_CORE": str(core), "LD_PRELOAD": f"{asan} {cxx}", "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-c", _SANITISED], env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "runtime error" not in done.stderr
