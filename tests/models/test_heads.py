"""The heads of MC-SSL and SiT."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gmml_models.models.heads import ConceptHead
from gmml_models.objectives import ContrastiveHead


def tokens(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_concept_head_has_the_layers_of_the_paper() -> None:
    head = ConceptHead(12, classes=40)
    shapes = [tuple(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Linear)]
    assert shapes == [(2048, 12), (2048, 2048), (256, 2048)]
    assert [type(layer) for layer in head.layers] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]
    assert head.concepts.shape == (40, 256)
    assert sum(p.numel() for p in head.parameters()) == 2048 * 13 + 2048 * 2049 + 256 * 2049 + 40 * 256


def test_concept_logits_are_cosines() -> None:
    head = ConceptHead(12, classes=40, hidden=16, bottleneck=8)
    x = tokens(2, 5, 12)
    logits = head(x)
    assert logits.shape == (2, 5, 40)
    bottleneck = head.layers(x)
    wanted = F.cosine_similarity(bottleneck[..., None, :], head.concepts, dim=-1)
    torch.testing.assert_close(logits, wanted)
    assert logits.abs().max() <= 1 + 1e-6


def test_the_length_of_a_concept_does_not_count() -> None:
    head = ConceptHead(12, classes=40, hidden=16, bottleneck=8)
    before = head(tokens(3, 12))
    with torch.no_grad():
        head.concepts.mul_(torch.linspace(0.1, 10, 40)[:, None])
    torch.testing.assert_close(head(tokens(3, 12)), before)


def test_the_gain_is_an_option_and_learns() -> None:
    torch.manual_seed(0)
    plain = ConceptHead(12, classes=40, hidden=16, bottleneck=8)
    torch.manual_seed(0)
    learning = ConceptHead(12, classes=40, hidden=16, bottleneck=8, gain=True)
    assert "gain" not in dict(plain.named_parameters())
    torch.testing.assert_close(learning(tokens(3, 12)), plain(tokens(3, 12)))
    assert learning.gain is not None
    with torch.no_grad():
        learning.gain.mul_(2)
    out = learning(tokens(3, 12))
    torch.testing.assert_close(out, 2 * plain(tokens(3, 12)))
    out.square().sum().backward()
    assert learning.gain.grad is not None
    assert learning.gain.grad.abs().min() > 0


def test_heads_are_copied_and_loaded_for_a_teacher() -> None:
    for head in (ConceptHead(12, 40, 16, 8), ContrastiveHead(12, 16, 8)):
        teacher = copy.deepcopy(head).requires_grad_(False)
        teacher.load_state_dict(head.state_dict(), strict=True)
        assert torch.equal(teacher.eval()(tokens(4, 12)), head.eval()(tokens(4, 12)))


def test_a_fresh_concept_head_uses_all_concepts_alike() -> None:
    head = ConceptHead(64, classes=128)
    logits = head(tokens(2000, 64))
    probability = (logits / 0.1).softmax(-1).mean(0)
    entropy = -(probability * probability.log()).sum()
    assert entropy > 0.85 * torch.log(torch.tensor(128.0))


def test_the_contrastive_head_has_the_layers_of_the_release() -> None:
    head = ContrastiveHead(12)
    kinds = [type(layer) for layer in head.layers]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear, nn.BatchNorm1d]
    shapes = [tuple(layer.weight.shape) for layer in head.layers if isinstance(layer, nn.Linear)]
    assert shapes == [(4096, 12), (4096, 4096), (256, 4096)]
    last = head.layers[-1]
    assert isinstance(last, nn.BatchNorm1d)
    assert not last.affine


def test_contrastive_embeddings_are_centred_and_scaled_while_training() -> None:
    head = ContrastiveHead(12, hidden=32, out=16)
    out = head(tokens(64, 12))
    assert out.shape == (64, 16)
    torch.testing.assert_close(out.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(0, correction=0), torch.ones(16), atol=1e-2, rtol=0)
    alone = head.eval()(tokens(64, 12))
    torch.testing.assert_close(torch.cat([head(one[None]) for one in tokens(64, 12)]), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_heads_run_under_autocast_and_learn(dtype: torch.dtype) -> None:
    concept, contrastive = ConceptHead(12, 40, 16, 8, gain=True), ContrastiveHead(12, 16, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        results = [concept(tokens(2, 5, 12)), contrastive(tokens(6, 12))]
    weights = [tokens(*result.shape, seed=1) for result in results]
    sum((result.float() * weight).sum() for result, weight in zip(results, weights, strict=True)).backward()
    for head in (concept, contrastive):
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name


def test_heads_compile_in_one_graph() -> None:
    for head, x in ((ConceptHead(12, 40, 16, 8), tokens(2, 5, 12)), (ContrastiveHead(12, 16, 8).eval(), tokens(6, 12))):
        torch.testing.assert_close(torch.compile(head, fullgraph=True, backend="eager")(x), head(x))


def test_what_does_not_fit_is_named() -> None:
    with pytest.raises(ValueError, match="ConceptHead: classes=0 is not a whole number above 0"):
        ConceptHead(12, classes=0)
    with pytest.raises(ValueError, match=r"ContrastiveHead: hidden=1\.5"):
        ContrastiveHead(12, hidden=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ConceptHead: tokens have shape \(2, 5, 11\), not \(..., 12\)"):
        ConceptHead(12, 40, 16, 8)(tokens(2, 5, 11))
    head = ContrastiveHead(12, 16, 8)
    with pytest.raises(ValueError, match=r"ContrastiveHead: tokens have shape \(2, 5, 12\), not \(B, 12\)"):
        head(tokens(2, 5, 12))
    with pytest.raises(ValueError, match="the batch holds 1"):
        head(tokens(1, 12))
