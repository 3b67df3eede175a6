"""What a step holds in memory, counted, and the parts that it is taken in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from gmml_models.errors import UsageError
from gmml_models.recipes.config import PretrainConfig
from gmml_models.recipes.pretraining import activations, build_objective, pretrain, view_plan
from gmml_models.train.memory import Needs, activation_bytes, fitted, parts_that_fit
from gmml_models.train.parallel import Parallel
from tests.models.runs import Pictures, result, small

CPU = torch.device("cpu")
NOISE = "InBoxes(Boxes(ratio=0.4), Noise())"  # does not ask who else is in the part


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


def test_checkpointed_blocks_are_counted_as_they_are_kept() -> None:
    options = PretrainConfig(model="vit_micro_patch8_64", views=1, grad_checkpointing=True)
    objective = build_objective(options)
    encoder, plan = objective.autoencoder.encoder, view_plan(options, objective.autoencoder)
    recomputed = 17 * (encoder.patch_embed.num_patches + 1) * encoder.embed_dim * 4
    found = kept(objective, [torch.randn(4, 3, *plan.size)]) / 4 + recomputed
    assert activations(options, objective, plan) == pytest.approx(found, rel=0.2)
    whole = build_objective(replace(options, grad_checkpointing=False)).autoencoder.encoder
    assert activation_bytes(encoder) < activation_bytes(whole) / 3


@given(batch=st.integers(1, 300), of_an_image=st.integers(1, 1 << 31), pairs=st.booleans())
def test_parts_are_whole_and_as_few_as_fit(batch: int, of_an_image: int, pairs: bool) -> None:
    parts = parts_that_fit(batch, Needs(0, of_an_image), CPU, pairs=pairs)
    assert batch % parts == 0
    size = batch // parts
    assert parts == 1 or size >= 2
    assert not pairs or batch % 2 or size % 2 == 0
    allowed = [other for other in range(1, batch + 1) if batch % other == 0 and (other == 1 or batch // other >= 2)]
    allowed = [other for other in allowed if not pairs or batch // other % 2 == 0] or [1]
    fits = [other for other in allowed if batch // other * of_an_image <= 1 << 30]
    assert parts == (fits or allowed[-1:])[0]


def test_processes_share_the_batch() -> None:
    assert parts_that_fit(256, Needs(0, 59 << 20), CPU) == 16
    assert parts_that_fit(256, Needs(0, 59 << 20), CPU, world=4) == 4
    with pytest.raises(UsageError, match=r"batch_size=9 cannot be divided evenly among 2 processes. Give a multiple of 2"):
        parts_that_fit(9, Needs(0, 1), CPU, world=2)


def test_a_run_says_in_how_many_parts_its_steps_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gmml_models.train.memory._ON_A_CPU", 1 << 20)
    one = pretrain(small(tmp_path / "fitted", epochs=1, checkpoint_every=0), dataset=Pictures())
    assert "--accumulate 4 (2 images at once). Other values may be given." in capsys.readouterr().err
    other = pretrain(small(tmp_path / "told", epochs=1, checkpoint_every=0, accumulate=4), dataset=Pictures())
    assert "--accumulate" not in capsys.readouterr().err
    assert [row["loss"] for row in one.history] == [row["loss"] for row in other.history]


@given(
    batch=st.integers(1, 300),
    needs=st.builds(Needs, st.integers(0, 1 << 30), st.integers(1, 1 << 30), st.integers(0, 1 << 30)),
    free=st.integers(0, 1 << 34),
    more=st.integers(0, 1 << 34),
    pairs=st.booleans(),
)
def test_more_free_memory_never_means_more_parts(batch: int, needs: Needs, free: int, more: int, pairs: bool) -> None:
    try:
        parts = parts_that_fit(batch, needs, CPU, pairs=pairs, free=free)
    except UsageError:  # then fewer bytes do not suffice either
        with pytest.raises(UsageError, match="MiB of memory are free, of which --accumulate auto uses 70%"):
            parts_that_fit(batch, needs, CPU, pairs=pairs, free=free // 2)
        return
    assert batch % parts == 0
    assert needs.model + needs.resident + batch // parts * needs.image + (300 << 20) <= 0.7 * free
    assert parts_that_fit(batch, needs, CPU, pairs=pairs) <= parts, "never larger parts than without the word"
    assert parts_that_fit(batch, needs, CPU, pairs=pairs, free=free + more) <= parts


def test_too_little_memory_is_an_error_with_its_figures() -> None:
    words = (
        r"500 MiB of memory are free, of which --accumulate auto uses 70%, but training needs about 392 MiB: 30 for weights, "
        r"gradients and optimiser, 2 for resident images, 300 for buffers, 60 for a part of 2 images\. "
        r"Free some memory, or give a smaller --model .*"
        r"--accumulate 32 to try anyway\."
    )
    needs = Needs(30 << 20, 30 << 20, 2 << 20)
    with pytest.raises(UsageError, match=words):
        parts_that_fit(64, needs, CPU, free=500 << 20)
    assert parts_that_fit(64, needs, CPU, free=561 << 20) == 32
    assert parts_that_fit(64, needs, CPU, free=64 << 30) == parts_that_fit(64, needs, CPU) == 2
    assert parts_that_fit(8, Needs(0, 2 << 30), CPU, free=64 << 30) == 4, "1 GiB is what is usual, not what there is"


def memory(monkeypatch: pytest.MonkeyPatch, mebibytes: float | None) -> None:
    """So much is free, where buffers take nothing."""
    free = None if mebibytes is None else int(mebibytes * 2**20)
    monkeypatch.setattr("gmml_models.train.memory._BESIDE", 0)
    monkeypatch.setattr("gmml_models.train.memory.free_memory", lambda device: free)
    monkeypatch.setattr("gmml_models.train.dry_run.free_memory", lambda device: free)


def test_parts_for_little_memory_only_change_what_is_computed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    for name, mebibytes in (("little", 30.0), ("much", 1000.0), ("unknown", None)):
        memory(monkeypatch, mebibytes)
        config = small(
            tmp_path / name, accumulate="auto", epochs=2, checkpoint_every=0, views="auto", drop_path=0.0, corruption=NOISE
        )
        pretrain(config, dataset=Pictures())
        found[name] = load_file(config.out / "weights" / "model.safetensors")
    said = capsys.readouterr().err
    assert "--accumulate 4 (2 images at once) --views 2." in said
    assert said.count("--accumulate 1 (8 images at once) --views 2.") == 2
    for key, weight in found["much"].items():
        assert torch.equal(weight, found["unknown"][key])
        torch.testing.assert_close(found["little"][key], weight, rtol=1e-3, atol=2e-4)


def test_a_run_keeps_its_parts_and_views_though_the_memory_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 30.0)
    config: PretrainConfig = small(
        tmp_path / "run", accumulate="auto", views="auto", batch_size="auto", epochs=2, checkpoint_every=0
    )
    pretrain(replace(config, out=tmp_path / "straight"), dataset=Pictures())
    assert not pretrain(replace(config, stop_after=0.0), dataset=Pictures()).finished
    recorded = json.loads((config.out / "config.json").read_text())
    assert (recorded["batch_size"], recorded["accumulate"], recorded["views"]) == (8, 4, 2)
    memory(monkeypatch, 4000.0)
    monkeypatch.setattr("gmml_models.recipes.pretraining.views_for", lambda *_, **__: 1)
    monkeypatch.setattr("gmml_models.recipes.auto.batch_for", lambda *_: 4)
    assert pretrain(config, dataset=Pictures()).finished
    assert result(config.out) == result(tmp_path / "straight")
    stated = replace(config, out=tmp_path / "stated", accumulate=4, views=2, batch_size=8)
    pretrain(stated, dataset=Pictures())
    assert result(stated.out) == result(config.out)


def test_a_run_without_the_word_records_none(tmp_path: Path) -> None:
    pretrain(small(tmp_path / "run", epochs=1), dataset=Pictures())
    assert json.loads((tmp_path / "run" / "config.json").read_text())["accumulate"] is None


def test_a_dry_run_tells_what_is_free_and_what_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config: PretrainConfig = small(tmp_path / "run", accumulate="auto", dry_run=True, resident=True, resident_size=100)
    memory(monkeypatch, 31.5)
    pretrain(config, dataset=Pictures())
    said = capsys.readouterr().out
    assert "1 MiB for resident images, about 1 MiB for 2 images at once (4 parts a step); 32 MiB are free" in said
    memory(monkeypatch, 2.0)
    with pytest.raises(
        UsageError, match=r"2 MiB of memory are free, .* 0 for buffers, 1 for a part of 2 images\. .*--accumulate 4"
    ):
        pretrain(config, dataset=Pictures())
    assert not (tmp_path / "run").exists()


def test_processes_take_the_parts_of_the_one_with_least_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    memory(monkeypatch, 800.0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    told: list[int] = []

    def least_of_all(mine: Tensor, how: object) -> None:
        assert how == torch.distributed.ReduceOp.MIN
        told.append(int(mine) >> 20)
        mine.fill_(100 << 20)

    monkeypatch.setattr(torch.distributed, "all_reduce", least_of_all)
    several = Parallel(device=CPU, rank=3, world=4, autocast=torch.no_grad, fsdp=False)
    asked = PretrainConfig(batch_size=64, accumulate="auto")
    assert fitted(asked, Needs(10 << 20, 10 << 20), several).accumulate == 4
    assert told == [200], "the processes of a computer share its memory"
    alone = replace(several, rank=0, world=1)
    assert fitted(asked, Needs(10 << 20, 10 << 20), alone).accumulate == 2
    assert fitted(replace(asked, accumulate=8), Needs(10 << 20, 10 << 30), alone).accumulate == 8, "what is stated is kept"


LIMITED = """
import resource, sys
import torch
from pathlib import Path
from gmml_models.errors import UsageError
from gmml_models.recipes import PretrainConfig, pretrain
from tests.models.runs import Pictures

room, out, accumulate = int(sys.argv[1]) << 20, Path(sys.argv[2]), sys.argv[3]
options = {"model": "vit_tiny_patch16_224", "batch_size": 16, "epochs": 1, "warmup_epochs": 0.0, "workers": 0, "cpu": True}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
parts = accumulate if accumulate == "auto" else int(accumulate)
try:
    pretrain(PretrainConfig(out=out, accumulate=parts, health_every=0, pictures_every=0, **options), dataset=Pictures(16, 224))
except (RuntimeError, MemoryError) as error:
    sys.exit(f"out of memory: {error}")
except UsageError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")
@pytest.mark.parametrize(
    ("mebibytes", "parts", "said"),
    [
        (600, "auto", "MiB of memory are free, of which --accumulate auto uses 70%"),
        (900, "auto", "--accumulate 8 (2 images at once)"),
        (1200, "auto", "--accumulate 4 (4 images at once)"),
        (1200, "1", "out of memory"),
    ],
)
def test_what_is_chosen_fits_where_the_system_enforces_it(tmp_path: Path, mebibytes: int, parts: str, said: str) -> None:
    words = [sys.executable, "-c", LIMITED, str(mebibytes), str(tmp_path / "run"), parts]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert said in done.stderr
    assert (done.returncode == 0) == (tmp_path / "run" / "weights").exists() == ("images at once" in said)
