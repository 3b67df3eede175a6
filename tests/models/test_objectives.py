"""What all objectives promise: their formula, chance, accumulation, gradients, state, several processes, errors before work."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

import gmml_aug as ga
import gmml_models as gm
from gmml_models.models.patches import normalise_patches
from gmml_models.objectives import GMML, MCSSL, Autoencode, Objective, SiT

NAME = "vit_tiny_patch16_224"
SMALL: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "patch_size": 8}
NOISE = ga.InBoxes(ga.Boxes(ratio=(0.2, 0.6), side=(0.2, 0.6)), ga.Noise())  # no donors: what happens to an image is its own
KINDS: dict[str, Callable[..., Objective]] = {"gmml": GMML, "control": Autoencode, "sit": SiT, "mc_ssl": MCSSL}


def small(kind: str = "gmml", **options: Any) -> Objective:
    torch.manual_seed(0)
    given: dict[str, Any] = {**SMALL, **options}
    encoder = given.pop("encoder", NAME)
    if encoder is not NAME:
        given = {name: value for name, value in given.items() if name not in SMALL}
    heads: dict[str, dict[str, Any]] = {
        "sit": {"hidden": 64, "out": 16},
        "mc_ssl": {"classes": 32, "hidden": 64, "bottleneck": 32, "decoder": "release"},
    }
    return KINDS[kind](encoder, **{**heads.get(kind, {}), **given})


def photographs(count: int = 16, size: int | tuple[int, int] = 32, seed: int = 1) -> Tensor:
    """Smooth images, so that what is hidden can be told from what is not."""
    coarse = torch.randn(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    return 1.2 * F.interpolate(coarse, size=size, mode="bilinear")


def crops(count: int = 8, views: int = 2, local: int = 0) -> list[Tensor]:
    sizes = [32] * views + [16] * local
    return [photographs(count, size, seed=number) for number, size in enumerate(sizes)]


def some_keys(count: int = 8, epoch: int = 0) -> Tensor:
    return ga.keys(7, epoch, range(count))


def learn(
    objective: Objective, views: list[Tensor], steps: int, lr: float, *, keys: Callable[[int], Tensor] | None = None
) -> list[dict[str, float]]:
    """The loss and its parts at every step."""
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=lr, weight_decay=0.0)
    found = []
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = lr * min(1, (step + 1) / 10) * (1 + math.cos(math.pi * step / steps)) / 2
        loss, parts = objective(views, keys=some_keys(len(views[0])) if keys is None else keys(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        objective.after_step((step + 1) / steps)
        found.append({"loss": float(loss.detach()), **{name: float(part) for name, part in parts.items()}})
    return found


def gradients(objective: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    return {name: grad.clone() for name, grad in found.items()}


ALL: dict[str, tuple[str, dict[str, Any], int, int]] = {  # kind, options, views, local views
    "gmml": ("gmml", {}, 1, 0),
    "gmml, crops": ("gmml", {}, 2, 2),
    "control": ("control", {}, 2, 1),
    "sit": ("sit", {}, 2, 0),
    "sit, many blocks": ("sit", {"blocks": (1, 2), "decoder": "paper"}, 2, 0),
    "mc_ssl": ("mc_ssl", {}, 1, 0),
    "mc_ssl, crops": ("mc_ssl", {}, 2, 3),
    "mc_ssl, class tokens": ("mc_ssl", {"cls": True, "freeze_last": 0.1}, 2, 2),
    "mc_ssl, masked": ("mc_ssl", {"masked": True}, 2, 0),
    "mc_ssl, reconstruction": ("mc_ssl", {"terms": "reconstruction"}, 2, 1),
    "mc_ssl, concepts": ("mc_ssl", {"terms": "concepts"}, 2, 0),
    "mc_ssl, concepts of class tokens": ("mc_ssl", {"terms": "concepts", "cls": True}, 1, 1),
}


def make(name: str, **options: Any) -> tuple[Objective, list[Tensor]]:
    kind, given, views, local = ALL[name]
    return small(kind, **{**given, **options}), crops(views=views, local=local)


def restored(objective: Objective, view: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """What the student makes of one view, by itself, and the mask."""
    assert objective.corrupt is not None
    corrupted, mask = objective.corrupt(view, keys=some_keys(len(view)) + number)
    return objective.autoencoder(corrupted), mask


# --- what they compute


def test_gmml_is_the_masked_difference_of_every_view() -> None:
    objective, views = small(), crops(views=2, local=2)
    views = [views[2], views[0], views[3], views[1]]  # sizes in any order
    loss, parts = objective(views, keys=some_keys())
    each = []
    for number, view in enumerate(views):
        found, mask = restored(objective, view, number)
        difference = (found - view).abs() * mask
        each.append((difference.sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))).mean())
    torch.testing.assert_close(loss, torch.stack(each).mean())
    assert list(parts) == ["reconstruction"]
    assert torch.equal(parts["reconstruction"], loss.detach())


@pytest.mark.parametrize(("loss", "power"), [("l1", 1), ("l2", 2)])
@pytest.mark.parametrize("target", ["pixels", "normalised"])
@pytest.mark.parametrize(
    ("kind", "masked"), [("gmml", True), ("sit", True), ("mc_ssl", True), ("mc_ssl", False), ("control", False)]
)
def test_reconstructions_are_compared_with_the_target_by_the_loss(
    kind: str, masked: bool, target: str, loss: str, power: int
) -> None:
    objective = small(kind, target=target, loss=loss, **({"masked": True} if kind == "mc_ssl" and masked else {}))
    views = crops()
    _, parts = objective(views, keys=some_keys())
    each = []
    for number, view in enumerate(views):
        found, mask = (objective.autoencoder(view), None) if kind == "control" else restored(objective, view, number)
        wanted = normalise_patches(view, 8) if target == "normalised" else view
        where = torch.ones_like(view[:, :1]) if mask is None or not masked else mask.float()
        difference = (found - wanted).abs().pow(power) * where
        each.append((difference.sum((1, 2, 3)) / (3 * where.sum((1, 2, 3)))).mean())
    torch.testing.assert_close(parts["reconstruction"], torch.stack(each).mean().detach())


@pytest.mark.parametrize("kind", ["gmml", "sit", "mc_ssl", "control"])
def test_a_normalised_target_is_shown_in_pixels(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    objective, images = small(kind, target="normalised"), photographs(8) + 1.0
    said = normalise_patches(images, 8)
    monkeypatch.setattr(type(objective.exported()), "forward", lambda *_: said)
    found = objective.reconstruct(images, keys=some_keys())
    torch.testing.assert_close(found.restored, images, rtol=1e-4, atol=1e-4)


def test_a_target_or_loss_that_nobody_knows_is_named() -> None:
    for kind in KINDS:
        with pytest.raises(ValueError, match=r"target='normalized' is unknown\. Allowed: 'pixels' and 'normalised'"):
            small(kind, target="normalized")
        with pytest.raises(ValueError, match=r"loss='huber' is unknown\. Allowed: 'l1' and 'l2'"):
            small(kind, loss="huber")
    with pytest.raises(ValueError, match="target cannot be combined with an autoencoder that is already built"):
        GMML(small().autoencoder, target="normalised")


def test_the_control_sees_the_images_as_they_are_and_looks_at_all_of_them() -> None:
    objective, views = small("control"), crops()
    loss, _ = objective(views, keys=some_keys())
    torch.testing.assert_close(loss, torch.stack([(objective.autoencoder(view) - view).abs().mean() for view in views]).mean())
    found = objective.reconstruct(views[0], keys=some_keys())
    assert torch.equal(found.corrupted, views[0])
    assert not found.mask.any()


@pytest.mark.parametrize(
    ("kind", "preset", "decoder", "blocks"),
    [
        ("gmml", ga.presets.gmml, "paper", (6, 8, 10, 12)),
        ("sit", ga.presets.sit, "release", (12,)),
        ("mc_ssl", ga.presets.mc_ssl, "mc_ssl", (12,)),
    ],
)
def test_what_an_objective_takes_by_itself(
    kind: str, preset: Callable[..., ga.Chain], decoder: str, blocks: tuple[int, ...]
) -> None:
    objective = small(kind, depth=12, embed_dim=6, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), decoder=None)
    assert objective.corrupt == preset(values=((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)))
    assert objective.autoencoder.decoder_name == decoder
    assert objective.autoencoder.blocks == blocks


def test_an_encoder_or_an_autoencoder_that_is_built_is_used_itself() -> None:
    autoencoder = gm.GMMLAutoencoder(NAME, **SMALL)
    assert small(encoder=autoencoder).autoencoder is autoencoder
    assert small("sit", encoder=autoencoder.encoder).autoencoder.encoder is autoencoder.encoder


# --- chance


@pytest.mark.parametrize("name", ALL)
def test_equal_keys_give_equal_losses_and_others_do_not(name: str) -> None:
    objective, views = make(name)
    loss, parts = objective(views, keys=some_keys())
    again, _ = objective(views, keys=some_keys())
    other, _ = objective(views, keys=some_keys(epoch=1))
    assert torch.equal(loss, again)
    assert torch.equal(loss, other) == (name == "control")
    assert loss.shape == ()
    assert loss.requires_grad
    assert all(part.shape == () and not part.requires_grad and part.isfinite() for part in parts.values())


@pytest.mark.parametrize("name", ["gmml, crops", "control", "mc_ssl, class tokens", "mc_ssl, masked"])
def test_halves_of_a_batch_have_its_gradient_and_its_centre(name: str) -> None:
    whole, views = make(name) if name == "control" else make(name, corrupt=NOISE)
    parted = copy.deepcopy(whole)
    whole(views, keys=some_keys())[0].backward()
    for half in (slice(0, 4), slice(4, 8)):
        (parted([view[half] for view in views], keys=some_keys()[half])[0] / 2).backward()
    wanted, found = gradients(whole), gradients(parted)
    assert wanted.keys() == found.keys()
    for parameter, gradient in wanted.items():
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-4, atol=1e-6, msg=parameter)
    whole.after_step(0.5)
    parted.after_step(0.5)
    centres = {key: value for key, value in whole.state_dict().items() if key.endswith("center")}
    assert len(centres) == {"mc_ssl, class tokens": 2, "mc_ssl, masked": 1}.get(name, 0)
    for key, value in centres.items():
        assert value.abs().max() > 1e-4
        torch.testing.assert_close(parted.state_dict()[key], value, rtol=1e-4, atol=1e-7)


# --- gradients, state, modes


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("encoder", [{}, {"reg_tokens": 2, "no_embed_class": True}])
def test_every_parameter_that_takes_a_gradient_gets_one(name: str, encoder: dict[str, Any]) -> None:
    objective, views = make(name, **encoder)
    objective(views, keys=some_keys())[0].backward()
    for parameter, tensor in objective.named_parameters():
        assert (tensor.grad is not None) == tensor.requires_grad, parameter
        frozen = parameter.startswith("teacher.") or ("decoder" in parameter and not objective.reconstructs)
        assert tensor.requires_grad != frozen, parameter


@pytest.mark.parametrize("name", ALL)
def test_a_run_that_is_loaded_goes_on_as_it_was(name: str) -> None:
    objective, views = make(name)
    learn(objective, views, 3, 1e-3)
    other, _ = make(name)
    other.load_state_dict(copy.deepcopy(objective.state_dict()))
    for one in (objective, other):
        learn(one, views, 2, 1e-3, keys=lambda step: some_keys(epoch=step))
    assert objective.state_dict().keys() == other.state_dict().keys()
    assert all(torch.equal(tensor, other.state_dict()[key]) for key, tensor in objective.state_dict().items())


@pytest.mark.parametrize("name", ALL)
def test_a_call_in_evaluation_leaves_no_trace(name: str) -> None:
    objective, views = make(name)
    objective.eval()
    before = [tensor.clone() for tensor in (*objective.parameters(), *objective.buffers())]
    objective(views, keys=some_keys())
    after = [*objective.parameters(), *objective.buffers()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", ["gmml", "control", "sit", "mc_ssl"])
def test_a_reconstruction_is_that_of_the_exported_autoencoder_and_modes_stay(kind: str) -> None:
    objective = small(kind, proj_drop_rate=0.5, **({} if kind == "control" else {"corrupt": NOISE}))
    learn(objective, crops(), 2, 1e-3)
    objective.autoencoder.decoder.eval()  # somebody's own mixture of modes
    modes = [module.training for module in objective.modules()]
    images = crops()[0]
    found = objective.reconstruct(images, keys=some_keys())
    assert [module.training for module in objective.modules()] == modes
    assert not found.restored.requires_grad
    assert found.mask.dtype == torch.bool
    exported = copy.deepcopy(objective.exported()).eval()
    assert torch.equal(found.restored, exported(found.corrupted))
    if kind != "control":
        assert torch.equal(found.corrupted, NOISE(images, keys=some_keys()).images)


@pytest.mark.parametrize("kind", ["gmml", "control", "sit", "mc_ssl"])
def test_what_is_exported_can_be_saved_and_loaded(kind: str, tmp_path: Path) -> None:
    objective = small(kind)
    learn(objective, crops(), 2, 1e-3)
    objective.exported().save_pretrained(tmp_path)
    loaded = gm.from_pretrained(tmp_path)
    for key, tensor in objective.encoder().state_dict().items():
        assert torch.equal(loaded.state_dict()[key], tensor)
    assert all(p.requires_grad for p in loaded.parameters())
    student = kind in ("gmml", "control")
    assert (objective.encoder() is objective.autoencoder.encoder) == student


@pytest.mark.parametrize("name", ["gmml", "control", "sit", "mc_ssl, class tokens"])
def test_other_shapes_precisions_and_checkpointing_work(name: str) -> None:
    objective, _ = make(name, in_chans=1, img_size=(16, 32), corrupt=None) if name != "control" else make(name, in_chans=1)
    views = [view[:, :1, :16].bfloat16().float() for view in crops()]
    plain, _ = objective(views, keys=some_keys())
    plain.backward()
    wanted = gradients(objective)
    objective.zero_grad()
    objective.autoencoder.set_grad_checkpointing()
    kept = {key: tensor.clone() for key, tensor in objective.state_dict().items()}
    saving, _ = objective(views, keys=some_keys())
    saving.backward()
    assert torch.equal(saving, plain)
    assert all(torch.equal(gradient, wanted[key]) for key, gradient in gradients(objective).items())
    objective.load_state_dict(kept)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half, _ = objective(views, keys=some_keys())
    half.backward()
    assert half.dtype == torch.float32
    assert all(bool(gradient.isfinite().all()) for gradient in gradients(objective).values())
    assert float(half.detach()) == pytest.approx(float(plain.detach()), rel=0.05)


@pytest.mark.parametrize(("name", "backend"), [("gmml", "eager"), ("sit", "eager"), ("mc_ssl, class tokens", "aot_eager")])
def test_a_call_compiles_in_one_graph(name: str, backend: str) -> None:
    objective, views = make(name, depth=1, corrupt=NOISE)
    other = copy.deepcopy(objective)
    torch.compiler.reset()
    compiled = torch.compile(other, fullgraph=True, backend=backend)
    for epoch in range(2):  # the second time with a centre and a teacher that moved
        for one, call in ((objective, objective), (other, compiled)):
            loss, _ = call(views, keys=some_keys(epoch=epoch))
            loss.backward()
            one.after_step(0.5)
    wanted, found = gradients(objective), gradients(other)
    assert wanted.keys() == found.keys()
    for key, gradient in wanted.items():
        torch.testing.assert_close(found[key], gradient, rtol=1e-4, atol=1e-5)
    for key, tensor in objective.state_dict().items():
        torch.testing.assert_close(other.state_dict()[key], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gmml", "sit", "mc_ssl, class tokens"])
def test_compiling_an_objective_compiles_its_networks_and_changes_no_loss(name: str) -> None:
    objective, views = make(name, depth=1, corrupt=NOISE)
    other, graphs = copy.deepcopy(objective), list[torch.fx.GraphModule]()

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    other.compile(backend=backend)
    known = 0
    for epoch in range(3):
        for one in (objective, other):
            loss, _ = one(views, keys=some_keys(epoch=epoch))
            loss.backward()
            one.after_step(0.5)
        known = known or len(graphs)
    assert 1 <= known == len(graphs)
    for key, gradient in gradients(objective).items():
        torch.testing.assert_close(gradients(other)[key], gradient, rtol=1e-4, atol=1e-5)
    assert not any("xor" in str(node.target) for graph in graphs for node in graph.graph.nodes)  # hashes keys


# --- learning


def test_gmml_overfits_a_few_images() -> None:
    found = learn(small(img_size=16, patch_size=4), [photographs(16, 16)], 150, 4e-3)
    assert found[-1]["loss"] < 0.35 * found[0]["loss"]


def test_the_control_reconstructs_nearly_perfectly_after_a_few_steps() -> None:
    found = learn(small("control", img_size=16, patch_size=4), [photographs(16, 16)], 400, 3e-3)
    assert found[0]["loss"] > 0.6
    assert found[-1]["loss"] < 0.1


def test_corruption_is_what_makes_it_hard() -> None:
    found = [
        learn(small(kind, img_size=16, patch_size=4), [photographs(16, 16)], 150, 4e-3, keys=lambda step: some_keys(16, epoch=step))
        for kind in ("gmml", "control")
    ]
    assert found[0][-1]["loss"] > 1.5 * found[1][-1]["loss"]


# --- errors


def with_error(objective: Objective, views: Any, keys: Any, error: type[Exception], match: str) -> None:
    touched: list[bool] = []
    hooks = [module.register_forward_pre_hook(lambda *_: touched.append(True)) for module in objective.autoencoder.modules()]
    with pytest.raises(error, match=match):
        objective(views, keys=keys)
    assert not touched  # before any work
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["gmml", "control", "sit", "mc_ssl"])
def test_views_that_cannot_be_are_named_before_any_work(name: str) -> None:
    objective = small(name)
    two, keys = crops(), some_keys()
    wrong: list[tuple[Any, Any, type[Exception], str]] = [
        (two[0], keys, TypeError, "views must be a list of tensors"),
        ([], keys, TypeError, "views must be a list"),
        ([two[0][:, :1]] * 2, keys, ValueError, r"not \(B, 3, H, W\)"),
        ([two[0][..., :-1]] * 2, keys, ValueError, "not a whole number of patches"),
        ([two[0].to(torch.uint8)] * 2, keys, TypeError, "not a float type"),
        ([two[0], two[1][:4]], keys, ValueError, "view 1 holds 4 images"),
        ([two[0], two[1].double()], keys, ValueError, "view 1 holds 8 images, torch.float64"),
        ([view[:0] for view in two], keys[:0], ValueError, "hold no image"),
        (two, keys[:4], ValueError, r"keys have shape \(4,\), but the batch holds 8"),
        (two, keys.float(), TypeError, "keys must be an int64 tensor"),
        (two, None, TypeError, "keys must be an int64 tensor"),
    ]
    for views, given, error, match in wrong:
        with_error(objective, views, given, error, match)


def test_a_batch_of_one_works_where_no_other_image_is_needed() -> None:
    one, key = [view[:1] for view in crops()], some_keys(1)
    for kind in ("gmml", "mc_ssl"):
        with_error(small(kind), one, key, ValueError, "the batch holds 1")
        assert small(kind, corrupt=NOISE)(one, keys=key)[0].isfinite()
    with_error(small("sit", corrupt=NOISE), one, key, ValueError, "SiT: a batch of one has no other image")


@pytest.mark.parametrize("kind", ["gmml", "control", "sit", "mc_ssl"])
def test_arguments_that_cannot_be_are_named(kind: str) -> None:
    if kind != "control":
        with pytest.raises(TypeError, match=r"corrupt='none' is not a corruption.*Autoencode"):
            small(kind, corrupt="none")
    with pytest.raises(ValueError, match="decoder, img_size cannot be combined with an autoencoder that is already built"):
        KINDS[kind](gm.GMMLAutoencoder(NAME, **SMALL), decoder="paper", img_size=32)
    with pytest.raises(TypeError, match="epochs=3 is not an argument"):
        small(kind, epochs=3)
    with pytest.raises(ValueError, match=r"progress=1.5 is outside \[0, 1\]"):
        small(kind).after_step(1.5)
    if kind in ("gmml", "control"):
        with pytest.raises(ValueError, match=r"blocks=\(1,\) end before the last block, 2"):
            small(kind, blocks=(1,))


# --- several processes


def tensors(objective: Objective) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in objective.state_dict().items() if "running" not in key and "num_batches" not in key}


def two_steps(model: Any, objective: Objective, views: Sequence[Tensor], keys: Tensor) -> None:
    """Two steps of two accumulated halves each, by plain gradient descent."""
    for step in range(2):
        objective.zero_grad()
        for part in range(2):
            half = slice(part * len(keys) // 2, (part + 1) * len(keys) // 2)
            (model([view[half] for view in views], keys=keys[half] + 100 * step)[0] / 2).backward()
        with torch.no_grad():
            for parameter in objective.parameters():
                if parameter.grad is not None:
                    parameter.sub_(parameter.grad, alpha=1.0)
        objective.after_step((step + 1) / 2)


def one_rank(rank: int, folder: str) -> None:
    """What one of two processes finds on its half of the batch."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        half = slice(4 * rank, 4 * rank + 4)
        objective = small("mc_ssl", corrupt=NOISE, cls=True, freeze_last=0.5)
        model = DistributedDataParallel(objective)
        two_steps(model, objective, [view[half] for view in crops(local=1)], some_keys()[half])
        sit = small("sit", corrupt=NOISE)
        two_steps(DistributedDataParallel(sit), sit, [view[half] for view in crops()], some_keys()[half])
        still = small("sit", corrupt=NOISE).eval()  # batch norms see their own half while training
        loss, _ = still([view[half] for view in crops()], keys=some_keys()[half])
        loss.backward()
        torch.save((tensors(objective), tensors(sit), loss.detach(), gradients(still)), f"{folder}/rank{rank}.pt")
    finally:
        distributed.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Path) -> None:
    spawn(one_rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for one, other in zip(first[:2], second[:2], strict=True):  # student, teacher and centres are the same everywhere
        assert one.keys() == other.keys()
        assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    objective = small("mc_ssl", corrupt=NOISE, cls=True, freeze_last=0.5)
    start = copy.deepcopy(tensors(objective))
    two_steps(objective, objective, crops(local=1), some_keys())
    for key, tensor in tensors(objective).items():
        torch.testing.assert_close(first[0][key], tensor, rtol=1e-4, atol=1e-6, msg=key)
    for key in ("patch_loss.center", "cls_loss.center", "autoencoder.decoder.to_pixels.weight"):
        assert (start[key] - first[0][key]).abs().max() > 3e-5  # something happened
    sit = small("sit", corrupt=NOISE).eval()
    loss, _ = sit(crops(), keys=some_keys())
    loss.backward()
    torch.testing.assert_close((first[2] + second[2]) / 2, loss.detach())
    for key, gradient in gradients(sit).items():
        torch.testing.assert_close((first[3][key] + second[3][key]) / 2, gradient, rtol=1e-3, atol=1e-6)
