"""A plan is small tensors that say everything: sliced, moved, saved, loaded and replayed without a bit of difference."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.utils import _pytree as pytree

import gmml_aug as ga
from tests.helpers import leaves, plans_equal, random_images, same_bits, some_keys

GMML = ga.presets.gmml(zeros=0.3, budget=0.6)
SHAPE = (12, 3, 40, 36)


def a_plan(corrupt: ga.Corruption = GMML, shape: tuple[int, ...] = SHAPE) -> ga.Plan:
    return corrupt.sample(shape, keys=some_keys(shape[0]))


def test_a_plan_is_a_pytree() -> None:
    plan = a_plan()
    flat, spec = pytree.tree_flatten(plan)
    assert all(isinstance(leaf, torch.Tensor) for leaf in flat)
    again = pytree.tree_unflatten(flat, spec)
    assert isinstance(again, ga.Plan)
    assert plans_equal(again, plan)
    assert again.donors == plan.donors
    doubled = pytree.tree_map(lambda leaf: torch.cat([leaf, leaf]), plan)
    assert len(doubled) == 24
    assert len(pytree.tree_flatten_with_path(plan)[0]) == len(flat)


def test_a_plan_has_the_batch_as_first_axis_of_every_tensor_and_is_small() -> None:
    plan = a_plan(shape=(16, 3, 224, 224))
    assert len(plan) == 16
    assert all(leaf.shape[0] == 16 for leaf in leaves(plan))
    assert sum(leaf.numel() * leaf.element_size() for leaf in leaves(plan)) < 16 * 8192
    assert all(boxes.dtype == torch.int32 for boxes in plan.boxes)


def test_a_plan_says_everything(device: torch.device) -> None:
    images = random_images(SHAPE).to(device)
    plan = GMML.sample(images.shape, keys=some_keys(12).to(device))
    first, second = GMML.apply(images, plan), GMML.apply(images, plan)
    direct = GMML(images, keys=some_keys(12).to(device))
    for other in (second, direct):
        assert same_bits(first.images, other.images)
        assert torch.equal(first.mask, other.mask)
    copied = pickle.loads(pickle.dumps(plan))
    assert plans_equal(copied, plan)
    assert plans_equal(copy.deepcopy(plan), plan)
    assert same_bits(GMML.apply(images, copied).images, first.images)


def test_apply_reads_no_chance() -> None:
    images, plan = random_images(SHAPE), a_plan()
    torch.manual_seed(1)
    before = torch.get_rng_state()
    GMML.apply(images, plan)
    assert torch.equal(torch.get_rng_state(), before)


def test_boxes_of_a_plan_say_where_a_step_works() -> None:
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Zeros())
    plan = a_plan(corrupt)
    mask = torch.zeros(12, 1, 40, 36, dtype=torch.bool)
    for image, boxes in enumerate(plan.boxes[0].tolist()):
        for row, column, height, width in boxes:
            for y in range(row, row + height):
                for x in range(column, column + width):
                    mask[image, 0, y % 40, x % 36] = True
    assert torch.equal(corrupt.apply(torch.zeros(SHAPE), plan).mask, mask)


def test_slices_and_single_images() -> None:
    plan = a_plan()
    assert len(plan[2:5]) == 3
    assert len(plan[::3]) == 4
    assert len(plan[:]) == 12
    assert len(plan[7]) == len(plan[-1]) == 1
    assert plans_equal(plan[7], plan[7:8])
    assert plans_equal(plan[-1], plan[11:])
    assert plans_equal(plan[-12], plan[:1])
    for number in (12, -13):
        with pytest.raises(IndexError, match=f"image {number} of a plan for 12"):
            plan[number]
    with pytest.raises(TypeError):
        plan["first"]  # type: ignore[index]


def test_a_plan_is_not_iterated_forever() -> None:
    assert [len(one) for one in a_plan()] == [1] * 12  # type: ignore[attr-defined]


def test_moving_a_plan(device: torch.device) -> None:
    plan = a_plan()
    moved = plan.to(device)
    assert all(leaf.device.type == device.type for leaf in leaves(moved))
    assert plans_equal(moved.to("cpu"), plan)
    assert {leaf.device.type for leaf in leaves(plan.to("meta"))} == {"meta"}


def test_only_keeps_the_named_steps(device: torch.device) -> None:
    images = random_images(SHAPE).to(device)
    chain = ga.Chain([ga.InBoxes(ga.Boxes(ratio=0.3), fill) for fill in (ga.Zeros(), ga.Constant(value=9.0), ga.Noise())])
    plan = chain.sample(images.shape, keys=some_keys(12).to(device))
    alone = plan.only(1)
    assert chain.kinds(alone).unique().tolist() == [0, 2]
    found, mask = chain.apply(images, alone)
    assert (found[mask.expand_as(found)] == 9).all()
    assert int(mask.sum()) == 12 * round(0.3 * 40 * 36)
    dense = chain.apply(images.clone().requires_grad_(), alone)
    assert torch.equal(dense.mask, mask)
    assert same_bits(dense.images.detach(), found)
    assert not chain.apply(images, plan.only()).mask.any()
    assert same_bits(chain.apply(images, plan.only(0, 1, 2)).images, chain.apply(images, plan).images)
    assert plan.active.all()


class TestSaving:
    """Needs safetensors, which the library loads only here."""

    @pytest.fixture(autouse=True)
    def _safetensors(self) -> None:
        pytest.importorskip("safetensors")

    @pytest.mark.parametrize(
        ("corrupt", "shape"),
        [
            (GMML, SHAPE),
            (ga.Grey(), (3, 3, 8, 8)),
            (ga.InBoxes(ga.Boxes(ratio=0.4, dims=1), ga.Blur()), (2, 1, 50)),
            (ga.InBoxes(ga.Boxes(ratio=0.4, dims=3), ga.Alien()), (5, 1, 8, 9, 7)),
        ],
        ids=["gmml", "grey", "signal", "volume"],
    )
    def test_a_saved_plan_comes_back_to_the_bit(self, tmp_path: Path, corrupt: ga.Corruption, shape: tuple[int, ...]) -> None:
        plan = a_plan(corrupt, shape)
        plan.save(tmp_path / "plan.safetensors")
        again = ga.Plan.load(str(tmp_path / "plan.safetensors"))
        assert [same_bits(a, b) for a, b in zip(leaves(again), leaves(plan), strict=True)].count(False) == 0
        assert (again.shape, again.donors, len(again)) == (plan.shape, plan.donors, len(plan))
        images = random_images(shape)
        assert same_bits(corrupt.apply(images, again).images, corrupt.apply(images, plan).images)
        assert [path.name for path in tmp_path.iterdir()] == ["plan.safetensors"]

    def test_a_part_of_a_plan_can_be_saved(self, tmp_path: Path) -> None:
        plan = a_plan()
        for number, part in enumerate([plan[3], plan[2:7], plan[::2]]):
            part.save(tmp_path / f"{number}.safetensors")
            assert plans_equal(ga.Plan.load(tmp_path / f"{number}.safetensors"), part)

    def test_saving_replaces_what_was_there(self, tmp_path: Path) -> None:
        path = tmp_path / "plan.safetensors"
        path.write_bytes(b"older")
        a_plan().save(path)
        assert plans_equal(ga.Plan.load(path), a_plan())

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match="nowhere"):
            ga.Plan.load(tmp_path / "nowhere.safetensors")

    def test_a_failed_save_leaves_nothing_behind(self, tmp_path: Path) -> None:
        with pytest.raises((OSError, Exception)):
            a_plan().save(tmp_path / "no folder" / "plan.safetensors")
        assert list(tmp_path.iterdir()) == []

    def test_a_foreign_file_is_refused(self, tmp_path: Path) -> None:
        from safetensors.torch import save_file

        path = tmp_path / "weights.safetensors"
        save_file({"weight": torch.zeros(3)}, path)
        with pytest.raises(ValueError, match=r"weights.*not a saved plan"):
            ga.Plan.load(path)
        path.write_bytes(pickle.dumps({"keys": [1, 2]}))
        with pytest.raises(ValueError, match="weights"):
            ga.Plan.load(path)

    @pytest.mark.parametrize(
        "damage",
        [
            lambda raw: b"",
            lambda raw: raw[:4],
            lambda raw: raw[: len(raw) // 2],
            lambda raw: raw[:-1],
            lambda raw: b"\xff" * 8 + raw[8:],
            lambda raw: raw[:12] + b"\x00" + raw[13:],
        ],
        ids=["empty", "no header", "half", "one byte less", "header length", "header text"],
    )
    def test_a_damaged_file_is_refused(self, tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
        path = tmp_path / "plan.safetensors"
        a_plan().save(path)
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(ValueError, match="plan"):
            ga.Plan.load(path)

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("format", "gmml_aug.Plan 0"),
            ("boxes", "99"),
            ("boxes", "[]"),
            ("drawn", "[1, 1]"),
            ("drawn", "7"),
            ("shape", "[3"),
            ("donors", "null"),
            ("donors", "many"),
            ("boxes", None),
        ],
    )
    def test_a_header_that_lies_is_refused(self, tmp_path: Path, field: str, value: str | None) -> None:
        path = tmp_path / "plan.safetensors"
        a_plan().save(path)
        raw = path.read_bytes()
        length = int.from_bytes(raw[:8], "little")
        header = json.loads(raw[8 : 8 + length])
        if value is None:
            del header["__metadata__"][field]
        else:
            header["__metadata__"][field] = value
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
        with pytest.raises(ValueError, match="Plan"):
            ga.Plan.load(path)


def test_a_plan_for_other_images_is_an_error() -> None:
    plan = a_plan()
    for shape in [(11, 3, 40, 36), (12, 1, 40, 36), (12, 3, 36, 40)]:
        with pytest.raises(ValueError, match=r"the plan is for images \(12, 3, 40, 36\).*[Ss]ample"):
            GMML.apply(random_images(shape), plan)


def test_no_plan_at_all_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"expected a Plan, not NoneType.*sample"):
        GMML.apply(random_images(SHAPE), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expected a Plan"):
        GMML.kinds(torch.zeros(3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "other",
    [
        ga.Noise(),
        ga.presets.gmml(),
        ga.Chain([GMML, GMML]),
        ga.presets.gmml(zeros=0.3, budget=0.6).parts[0],
    ],
    ids=["one fill", "fewer steps", "more steps", "a part"],
)
def test_a_plan_of_another_corruption_is_an_error(other: ga.Corruption) -> None:
    with pytest.raises(ValueError, match=r"the plan has the steps .* at \d+ places"):
        GMML.apply(random_images(SHAPE), a_plan(other))
    with pytest.raises(ValueError, match=r"the plan has"):
        GMML.kinds(a_plan(other))


@pytest.mark.parametrize("fill", [ga.Alien(), ga.Blur(), ga.Zeros(), ga.Constant()], ids=repr)
def test_a_plan_of_other_fills_at_as_many_places_is_an_error_too(fill: ga.Fill) -> None:
    some = ga.Boxes(ratio=0.3)
    plan = a_plan(ga.InBoxes(some, ga.Noise()))
    with pytest.raises(ValueError, match=r"gmml_aug: .*plan"):
        ga.InBoxes(some, fill).apply(random_images(SHAPE), plan)


def test_a_plan_fits_an_equal_corruption_and_another_value_range() -> None:
    plan, images = a_plan(), random_images(SHAPE)
    again = eval(repr(GMML), vars(ga))
    assert same_bits(again.apply(images, plan).images, GMML.apply(images, plan).images)
    unit = ga.presets.gmml(zeros=0.3, budget=0.6, values="unit")
    assert torch.equal(unit.apply(images, plan).mask, GMML.apply(images, plan).mask)


SOME = ga.Boxes(ratio=0.3)
SETTINGS: list[tuple[ga.Corruption, ga.Corruption]] = [
    (ga.InBoxes(SOME, ga.Noise()), ga.InBoxes(ga.Cells(size=4, ratio=0.3), ga.Noise())),
    (ga.InBoxes(SOME, ga.Noise()), ga.InBoxes(ga.Boxes(ratio=0.3, invert=True), ga.Noise())),
    (ga.InBoxes(SOME, ga.Blur(sigma=3.0, kernel=15)), ga.InBoxes(SOME, ga.Blur(sigma=3.0, kernel=3))),
    (ga.InBoxes(SOME, ga.Noise(per="pixel")), ga.InBoxes(SOME, ga.Noise())),
    (ga.InBoxes(SOME, ga.Noise(), p=0.5), ga.InBoxes(SOME, ga.Noise(), p=0.6)),
    (ga.Chain([ga.InBoxes(SOME, ga.Noise())], budget=0.5), ga.Chain([ga.InBoxes(SOME, ga.Noise())])),
]


@pytest.mark.parametrize(("one", "other"), SETTINGS, ids=["place", "invert", "kernel", "per", "gate", "budget"])
def test_a_plan_of_other_settings_is_an_error(one: ga.Corruption, other: ga.Corruption) -> None:
    images = random_images((4, 3, 32, 32))
    for mine, theirs in ((one, other), (other, one)):
        plan = a_plan(theirs, (4, 3, 32, 32))
        refused = pytest.raises(
            ValueError, match=r"gmml_aug: the plan has.*Give a plan that was sampled by this corruption or an equal one"
        )
        with refused:
            mine.apply(images, plan)
        with refused:
            mine.kinds(plan)
        with refused:
            mine.explain(plan, 0, (1, 2))


def test_a_part_of_a_plan_and_a_plan_of_some_steps_know_their_corruption() -> None:
    plan = a_plan()
    for part in (plan[3], plan[2:5], plan.only(0), plan.to("cpu"), copy.deepcopy(plan)):
        assert part.fingerprint == plan.fingerprint == GMML.program.fingerprint
    assert len(plan.fingerprint) == 16


def test_a_file_of_format_1_is_read_with_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path, images = tmp_path / "plan.safetensors", random_images(SHAPE)
    plan = a_plan()
    plan.save(path)
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert header["__metadata__"].pop("fingerprint") == plan.fingerprint
    header["__metadata__"]["format"] = "gmml_aug.Plan 1"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + raw[8 + length :])
    with pytest.warns(UserWarning, match=r"has format 1.*Apply it with the same corruption"):
        old = ga.Plan.load(path)
    assert same_bits(GMML.apply(images, old).images, GMML.apply(images, plan).images)
    with pytest.raises(ValueError, match="the plan has the steps"):
        ga.presets.gmml().apply(images, old)
