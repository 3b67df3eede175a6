"""What a step holds in memory, counted, and the parts that it is taken in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gmml_models.errors import UsageError
from gmml_models.recipes.config import PretrainConfig
from gmml_models.recipes.pretraining import activations, build_objective, pretrain, view_plan
from gmml_models.train.memory import parts_that_fit
from tests.models.runs import Pictures, small

CPU = torch.device("cpu")


def kept(objective: torch.nn.Module, views: list[Tensor]) -> int:
    """Bytes that the graph of a forward pass keeps, parameters aside."""
    own = {one.untyped_storage().data_ptr() for one in objective.parameters()}
    held: dict[int, tuple[Tensor, int]] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = (
                tensor,
                tensor.untyped_storage().nbytes(),
            )  # kept, so that no other has its place
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        objective(views, keys=torch.arange(len(views[0])))
    return sum(size for _, size in held.values())


@pytest.mark.parametrize(
    "options",
    [
        {"model": "vit_micro_patch8_64"},
        {"model": "vit_tiny_patch16_224", "views": 1},
        {"model": "vit_small_patch16_224", "img_size": 96},
        {"model": "vit_micro_patch8_64", "method": "mc_ssl", "classes": 1024},
        {"model": "vit_micro_patch8_64", "method": "mc_ssl", "classes": 1024, "local_views": 2},
    ],
    ids=str,
)
def test_the_arithmetic_is_near_what_is_kept(options: dict[str, object]) -> None:
    config = PretrainConfig(**options)  # type: ignore[arg-type]
    objective = build_objective(config)
    plan, images = view_plan(config, objective.autoencoder), 4
    views = [torch.randn(images, 3, *plan.size) for _ in range(plan.views)]
    views += [torch.randn(images, 3, *plan.local_size) for _ in range(plan.local_views)]
    assert activations(config, objective, plan) * images == pytest.approx(kept(objective, views), rel=0.35)


@given(batch=st.integers(1, 300), of_an_image=st.integers(1, 1 << 31), pairs=st.booleans())
def test_parts_are_whole_and_as_few_as_fit(batch: int, of_an_image: int, pairs: bool) -> None:
    parts = parts_that_fit(batch, of_an_image, CPU, pairs=pairs)
    assert batch % parts == 0
    size = batch // parts
    assert parts == 1 or size >= 2
    assert not pairs or batch % 2 or size % 2 == 0
    allowed = [other for other in range(1, batch + 1) if batch % other == 0 and (other == 1 or batch // other >= 2)]
    allowed = [other for other in allowed if not pairs or batch // other % 2 == 0] or [1]
    fits = [other for other in allowed if batch // other * of_an_image <= 1 << 30]
    assert parts == (fits or allowed[-1:])[0]


def test_processes_share_the_batch() -> None:
    assert parts_that_fit(256, 59 << 20, CPU) == 16
    assert parts_that_fit(256, 59 << 20, CPU, world=4) == 4
    with pytest.raises(UsageError, match=r"batch_size=9 cannot be divided evenly among 2 processes. Give a multiple of 2"):
        parts_that_fit(9, 1, CPU, world=2)


def test_a_run_says_in_how_many_parts_its_steps_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gmml_models.train.memory._ON_A_CPU", 1 << 20)
    one = pretrain(small(tmp_path / "fitted", epochs=1, checkpoint_every=0), dataset=Pictures())
    said = capsys.readouterr().err
    assert "a step of 8 images is split into 4 parts, which fit into memory (--accumulate 4)" in said
    other = pretrain(small(tmp_path / "told", epochs=1, checkpoint_every=0, accumulate=4), dataset=Pictures())
    assert "parts" not in capsys.readouterr().err
    assert [row["loss"] for row in one.history] == [row["loss"] for row in other.history]
