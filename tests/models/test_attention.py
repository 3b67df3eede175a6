"""Attention weights beside fused attention: against timm's own unfused ones, and against what attention must be."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock
from torch import Tensor, nn

import gmml_models as gm
from gmml_models.figures import attention

SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 3, "num_heads": 2, "img_size": 32, "patch_size": 8}
ENCODERS: dict[str, dict[str, Any]] = {
    "plain": {},
    "not square": {"img_size": (32, 48), "patch_size": (4, 8)},
    "registers": {"reg_tokens": 3},
    "no class token": {"class_token": False, "global_pool": ""},
    "registers alone": {"class_token": False, "global_pool": "", "reg_tokens": 2},
    "normed queries": {"qk_norm": True},
    "no bias": {"qkv_bias": False, "in_chans": 1},
    "scaled layers": {"init_values": 0.1},
}


def encoder(**options: Any) -> Any:
    torch.manual_seed(0)
    vit = gm.build_encoder("vit_tiny_patch16_224", **{**SMALL, **options})
    for block in vit.blocks:  # weights that look somewhere: the usual start is nearly even
        layer: Any = block.attn
        nn.init.normal_(layer.qkv.weight, std=0.3)
    return vit.eval()


def images(vit: Any, count: int = 3) -> Tensor:
    size, channels = vit.patch_embed.img_size, vit.patch_embed.proj.in_channels
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(1))


def unfused(vit: Any, batch: Tensor) -> Tensor:
    """(B, L, heads, T, T) as timm computes it itself where it is not fused."""
    slow = copy.deepcopy(vit)
    found: list[Tensor] = []
    for block in slow.blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_pre_hook(lambda _, given: found.append(given[0]))
    with torch.no_grad():
        slow.forward_features(batch)
    return torch.stack(found, 1)


@pytest.mark.parametrize("kind", ENCODERS)
def test_weights_are_those_of_unfused_attention(kind: str) -> None:
    vit = encoder(**ENCODERS[kind])
    assert all(block.attn.fused_attn for block in vit.blocks)
    batch = images(vit)
    wanted = unfused(vit, batch)
    found = attention(vit, batch, heads=True)
    assert torch.allclose(found.weights, wanted, atol=1e-6)
    assert torch.allclose(attention(vit, batch).weights, wanted.mean(2), atol=1e-6)
    assert found.weights.std() > 1e-3  # they do look somewhere


@pytest.mark.parametrize("kind", ENCODERS)
def test_rows_sum_to_one_over_all_tokens(kind: str) -> None:
    vit = encoder(**ENCODERS[kind])
    found = attention(vit, images(vit))
    tokens = found.grid[0] * found.grid[1] + vit.num_prefix_tokens
    assert found.weights.shape == (3, 3, tokens, tokens)
    assert found.weights.dtype == torch.float32
    assert torch.allclose(found.weights.sum(-1), torch.ones(3, 3, tokens), atol=1e-5)
    assert (found.weights >= 0).all()
    assert found.prefix == vit.num_prefix_tokens


def test_it_works_where_timm_distils_and_at_another_size() -> None:
    torch.manual_seed(0)
    vit = gm.build_encoder("deit_tiny_distilled_patch16_224", **SMALL).eval()
    batch = torch.randn(2, 3, 64, 40)
    found = attention(vit, batch)
    assert (found.grid, found.prefix) == ((8, 5), 2)
    assert torch.allclose(found.weights, unfused(vit, batch).mean(2), atol=1e-6)


def test_the_encoder_is_left_as_it_was() -> None:
    vit = encoder(attn_drop_rate=0.3, drop_path_rate=0.5)
    batch = images(vit)
    with torch.no_grad():
        before = vit(batch)
    state = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
    calm = attention(vit, batch)
    vit.train()
    vit.blocks[1].eval()
    assert torch.equal(attention(vit, batch).weights, calm.weights)  # nothing is dropped while it is looked at
    assert [vit.training, vit.blocks[0].training, vit.blocks[1].training] == [True, True, False]
    with torch.no_grad():
        assert torch.equal(vit.eval()(batch), before)
    assert all(torch.equal(tensor, state[name]) for name, tensor in vit.state_dict().items())
    assert all(block.attn.fused_attn and not block.attn.qkv._forward_hooks for block in vit.blocks)
    assert not calm.weights.requires_grad


def test_no_hook_stays_after_an_error() -> None:
    vit = encoder()
    vit.blocks[1].mlp = nn.Linear(7, 7)  # of another width
    with pytest.raises(RuntimeError):
        attention(vit, images(vit))
    assert not any(block.attn.qkv._forward_hooks for block in vit.blocks)


def test_chosen_blocks_are_those_of_all() -> None:
    vit = encoder()
    batch = images(vit)
    every, some = attention(vit, batch), attention(vit, batch, (1, 3))
    assert torch.equal(some.weights, every.weights[:, [0, 2]])
    assert (every.blocks, some.blocks) == ((1, 2, 3), (1, 3))


def test_a_block_that_knows_no_preference_looks_evenly() -> None:
    vit = encoder(reg_tokens=1)
    nn.init.zeros_(vit.blocks[1].attn.qkv.weight)
    nn.init.zeros_(vit.blocks[1].attn.qkv.bias)
    found = attention(vit, images(vit), (2,))
    assert torch.allclose(found.weights, torch.full_like(found.weights, 1 / 18))
    assert torch.allclose(found.seen_from("mean"), torch.full((3, 1, 4, 4), 1 / 18))


@pytest.mark.parametrize("heads", [False, True])
def test_maps_are_rows_of_the_weights(heads: bool) -> None:
    vit = encoder(img_size=(32, 48), reg_tokens=2)
    found = attention(vit, images(vit), heads=heads)
    weights = found.weights.unflatten(2, (-1, found.weights.shape[-2])) if not heads else found.weights  # with a head axis
    height, width = found.grid
    assert (height, width, found.prefix) == (4, 6, 3)
    by = {"cls": found.seen_from("cls"), "mean": found.seen_from("mean"), "patch": found.seen_from((2, 5))}
    assert all(seen.shape == ((3, 3, 2, 4, 6) if heads else (3, 3, 4, 6)) for seen in by.values())
    for row in range(height):
        for column in range(width):
            taken = weights[..., 3 + row * width + column]  # (B, L, heads, T): what every token takes from this patch
            wanted = {"cls": taken[..., 0], "patch": taken[..., 3 + 2 * width + 5], "mean": taken[..., 3:].mean(-1)}
            for name, seen in by.items():
                expected = wanted[name] if heads else wanted[name].squeeze(2)
                assert torch.allclose(seen[..., row, column], expected)
    matrix = found.between_patches()
    assert torch.allclose(matrix, found.weights[..., 3:, 3:].mean(0))
    assert (matrix.sum(-1) < 1).all()  # the prefix takes some


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("cls", "has no class token. Give 'mean'"),
        ((4, 0), r"from \(0, 0\) to \(3, 3\)"),
        ((0, -1), r"from \(0, 0\)"),
        ("patches", "is unknown"),
        ((1, 2, 3), "is unknown"),
    ],
)
def test_a_query_that_is_not_there_is_refused(query: Any, says: str) -> None:
    vit = encoder(class_token=False, global_pool="", reg_tokens=1)
    with pytest.raises(ValueError, match=says):
        attention(vit, images(vit)).seen_from(query)


@pytest.mark.parametrize("blocks", [(), (0,), (4,), (2, 1), (1, 1), (True,)])
def test_blocks_that_are_not_there_are_refused(blocks: Any) -> None:
    vit = encoder()
    with pytest.raises(ValueError, match=r"attention: blocks=.* from 1 to 3"):
        attention(vit, images(vit), blocks)


def test_images_and_blocks_of_another_kind_are_refused() -> None:
    vit = encoder()
    with pytest.raises(ValueError, match="not a whole number of patches"):
        attention(vit, torch.randn(1, 3, 32, 30))
    parallel: Any = timm.create_model("vit_tiny_patch16_224", num_classes=0, block_fn=ParallelScalingBlock, **SMALL)
    with pytest.raises(ValueError, match="block 1 of this encoder has"):
        attention(parallel, torch.randn(1, 3, 32, 32))
