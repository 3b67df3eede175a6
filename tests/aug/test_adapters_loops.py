"""`Module` and `TimmCorrupt`: stateless, the same as the corruption itself, and what training asks of them."""

from __future__ import annotations

import copy
import gc
import pickle
import resource
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmml_aug as ga
from tests.helpers import random_images, same_bits, some_keys

MIXED = ga.presets.gmml(values="normalised")
NOISE = ga.InBoxes(ga.Boxes(ratio=0.5), ga.Noise())


def wrapped() -> list[Any]:
    return [ga.Module(MIXED), ga.Module(MIXED, mask=True), ga.TimmCorrupt(MIXED)]


def test_a_module_in_a_sequential_gives_the_corrupted_images(device: torch.device) -> None:
    images = random_images((4, 3, 32, 32)).to(device)
    seen: list[Tensor] = []
    model = nn.Sequential(ga.Module(MIXED), nn.Conv2d(3, 2, 3).to(device))
    model[1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    torch.manual_seed(3)
    model(images)
    torch.manual_seed(3)
    wanted = MIXED(images).images
    torch.manual_seed(3)
    model.eval()(images)
    assert same_bits(seen[0], wanted)
    assert same_bits(seen[1], wanted)
    assert not torch.equal(wanted, images)


def test_a_module_has_no_state_and_gives_the_mask_only_beside_the_images() -> None:
    images, keys = random_images((4, 3, 32, 32)), some_keys(4)
    module = ga.Module(MIXED, mask=True)
    before = dict(vars(module))
    done = module(images, keys=keys)
    assert isinstance(done, ga.Corrupted)
    assert same_bits(done.mask, MIXED(images, keys=keys).mask)
    assert same_bits(ga.Module(MIXED)(images, keys=keys), done.images)
    nowhere = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    assert not module(images, keys=keys, allowed=nowhere).mask.any()  # every option of a call
    assert same_bits(ga.TimmCorrupt(MIXED)(images, 0, keys=keys, allowed=nowhere)[0], images)
    assert not module.state_dict()
    assert not list(module.parameters())
    assert dict(vars(module)) == before
    assert "Alien()" in repr(module)


def test_timms_loop_calls_it_and_its_own_mixup_alike() -> None:
    data = pytest.importorskip("timm.data")
    images, labels = random_images((4, 3, 16, 16)), torch.arange(4)
    for mixup in (data.Mixup(mixup_alpha=10.0, num_classes=4), ga.TimmCorrupt(NOISE), ga.TimmCorrupt(NOISE, mask=False)):
        assert mixup.mixup_enabled is True
        found = mixup(images.clone(), labels)[0]
        assert found.shape == images.shape
        assert not torch.equal(found, images)
        mixup.mixup_enabled = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert torch.equal(mixup(images.clone(), labels)[0], images)


@pytest.mark.parametrize("number", range(3))
def test_wrapped_corruptions_are_copied_and_pickled(number: int) -> None:
    images, keys = random_images((4, 3, 32, 32)), some_keys(4)
    one = wrapped()[number]
    arguments = (images, torch.arange(4)) if isinstance(one, ga.TimmCorrupt) else (images,)
    wanted = one(*arguments, keys=keys)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        found = other(*arguments, keys=keys)
        assert repr(other) == repr(one)
        assert same_bits(found if isinstance(found, Tensor) else found[0], wanted if isinstance(wanted, Tensor) else wanted[0])


@pytest.mark.parametrize("number", range(3))
def test_generators_pass_through_and_misspelt_options_do_not(number: int) -> None:
    images = random_images((4, 3, 32, 32))
    one = wrapped()[number]
    arguments = (images, torch.arange(4)) if isinstance(one, ga.TimmCorrupt) else (images,)
    before = torch.get_rng_state()
    done = one(*arguments, generator=torch.Generator().manual_seed(5))
    other = one(*arguments, generator=torch.Generator().manual_seed(6))
    wanted = MIXED(images, generator=torch.Generator().manual_seed(5)).images
    assert same_bits(done if isinstance(done, Tensor) else done[0], wanted)
    assert not torch.equal(other if isinstance(other, Tensor) else other[0], wanted)
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(TypeError, match="generater"):
        one(*arguments, generater=None)
    with pytest.raises(TypeError, match=r"corrupt=.*is not a corruption.*presets\.gmml"):
        type(one)(nn.Identity())


def test_timm_gets_the_mask_in_the_targets_for_its_loss() -> None:
    torch.manual_seed(0)
    model = nn.Conv2d(3, 3, 3, padding=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    mixup = ga.TimmCorrupt(NOISE)

    def masked(output: Tensor, clean: Tensor, mask: Tensor) -> Tensor:
        return ((output - clean).abs() * mask).sum() / mask.sum().clamp(min=1)

    loss_fn = ga.TimmCorrupt.loss(masked).to(device=torch.device("cpu"))  # as timm's script calls it

    for step in range(2):
        images, labels = random_images((4, 3, 16, 16), seed=step), torch.arange(4)
        kept = images.clone()
        corrupted, targets = mixup(images, labels)
        assert same_bits(targets["clean"], kept)
        assert targets["targets"] is labels
        assert targets["mask"].sum().item() == 4 * 128
        outside = ~targets["mask"].expand_as(images)
        assert torch.equal(corrupted[outside], kept[outside])
        optimiser.zero_grad()
        loss = loss_fn(model(corrupted), targets)
        assert torch.equal(loss, masked(model(corrupted), kept, targets["mask"]))
        loss.backward()
        optimiser.step()
    assert ga.TimmCorrupt(NOISE, mask=False)(images, labels)[1] is labels


def test_timm_switches_it_off_as_it_does_its_mixup() -> None:
    images = random_images((4, 3, 16, 16))
    mixup = ga.TimmCorrupt(NOISE)
    mixup.mixup_enabled = False
    with pytest.warns(UserWarning, match=r"masks are empty.*--mixup-off-epoch.*mask=False"):
        found, targets = mixup(images, torch.arange(4))
    again, _ = mixup(images, torch.arange(4))  # once is enough
    assert again is images
    assert found is images
    assert targets["mask"].shape == (4, 1, 16, 16)
    assert not targets["mask"].any()


def test_labels_need_no_warning_when_timm_switches_it_off() -> None:
    images, labels = random_images((4, 3, 16, 16)), torch.arange(4)
    mixup = ga.TimmCorrupt(NOISE, mask=False)
    mixup.mixup_enabled = False
    assert mixup(images, labels) == (images, labels)


@pytest.mark.parametrize("targets", [torch.arange(4), {"targets": torch.arange(4)}])
def test_a_loss_says_where_its_targets_should_come_from(targets: Any) -> None:
    loss = ga.TimmCorrupt.loss(lambda restored, clean, mask: restored)
    with pytest.raises(TypeError, match=r"TimmCorrupt\.loss: the targets are .*in the place of mixup_fn.*--no-prefetcher"):
        loss(torch.zeros(4), targets)
    with pytest.raises(TypeError, match=r"TimmCorrupt\.loss: None cannot be called"):
        ga.TimmCorrupt.loss(None)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:")  # deprecated from torch 2.9 on
def test_a_trace_would_keep_one_draw_and_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Module: torch\.jit\.trace .*would store.*Leave the corruption out"):
        torch.jit.trace(ga.Module(NOISE), random_images((2, 3, 16, 16)), check_trace=False)


def test_a_plan_from_disk_repeats_what_the_module_did(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    images, keys = random_images((4, 3, 32, 32)), some_keys(4)
    done = ga.Module(MIXED, mask=True)(images, keys=keys)
    MIXED.sample(images.shape, keys=keys).save(tmp_path / "plan.safetensors")
    again = MIXED.apply(images, ga.Plan.load(tmp_path / "plan.safetensors"))
    assert same_bits(again.images, done.images)
    assert same_bits(again.mask, done.mask)


def test_a_thousand_calls_leave_nothing_behind() -> None:
    images = random_images((4, 3, 32, 32))
    corrupt = ga.Chain([NOISE, ga.InBoxes(ga.Boxes(ratio=0.2), ga.Alien())])
    calls: list[Any] = [ga.Module(corrupt), ga.Module(corrupt, mask=True), lambda x: ga.TimmCorrupt(corrupt)(x, 0)]

    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())

    for number in range(50):
        calls[number % 3](images)
    alive, peak = tensors(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(1000):
        calls[number % 3](images)
    assert tensors() == alive
    # a batch and its mask are 53 kB: kept ones would be 50 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 16 * 1024


def test_deterministic_algorithms_are_all_that_it_needs(device: torch.device) -> None:
    images, keys = random_images((4, 3, 32, 32)).to(device), some_keys(4).to(device)
    wanted = MIXED(images, keys=keys)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        found = [ga.Module(MIXED, mask=True)(images, keys=keys) for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(before)
    for done in found:
        assert same_bits(done.images, wanted.images)
        assert same_bits(done.mask, wanted.mask)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(dtype: torch.dtype, device: torch.device) -> None:
    images, keys = random_images((4, 3, 32, 32)).to(device), some_keys(4).to(device)
    wanted = MIXED(images, keys=keys)
    with torch.autocast(device.type, dtype=dtype):
        found = ga.Module(MIXED, mask=True)(images, keys=keys)
    assert same_bits(found.images, wanted.images)
    assert same_bits(found.mask, wanted.mask)


def test_gradients_reach_what_is_still_there(device: torch.device) -> None:
    images = random_images((4, 3, 32, 32)).to(device).requires_grad_()
    weight = random_images((4, 3, 32, 32), seed=1).to(device)
    done = ga.Module(NOISE, mask=True)(images)
    (done.images * weight).sum().backward()
    assert images.grad is not None
    assert torch.equal(images.grad, weight * ~done.mask)


def test_the_gradient_of_alien_content_goes_to_its_donor(device: torch.device) -> None:
    images = random_images((4, 3, 32, 32)).to(device).requires_grad_()
    corrupt = ga.InBoxes(ga.Boxes(ratio=0.4), ga.Alien())
    plan = corrupt.sample(images.shape, keys=some_keys(4).to(device))
    done = corrupt.apply(images, plan)
    weight = random_images((4, 3, 32, 32), seed=1).to(device)
    (done.images * weight).sum().backward()
    wanted = (weight * ~done.mask).index_add(0, plan.drawn[0][0], weight * done.mask)
    assert images.grad is not None
    torch.testing.assert_close(images.grad, wanted)


def test_a_graph_is_recorded_on_cuda_alone() -> None:
    graphed = ga.Graphed(ga.presets.gmml())
    with pytest.raises(ValueError, match=r"Graphed: only images on a CUDA device.*not cpu. Call the corruption itself"):
        graphed(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="not list"):
        graphed.buffer([1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Graphed: corrupt=.gmml. is not a corruption"):
        ga.Graphed("gmml")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="most"):
        ga.Graphed(ga.presets.gmml(), most=0)
