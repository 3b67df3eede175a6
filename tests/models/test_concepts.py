"""Clusters of patches, and the learnt concepts in them: what a colour means, in whatever order the images come."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

import gmml_models as gm
from gmml_models.figures import concept_probabilities, concepts

pytest.importorskip("sklearn")
SMALL: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 32, "patch_size": 4}
COLOURS = {"red": (2.0, -1.0, -1.0), "pink": (2.0, -0.5, 0.2), "blue": (-1.0, -1.0, 2.0), "green": (-1.5, 2.0, -1.0)}


def encoder(**options: Any) -> Any:
    torch.manual_seed(0)
    return gm.build_encoder("vit_tiny_patch16_224", **{**SMALL, **options}).eval()


def painted(ground: str, *boxes: tuple[str, int, int, int, int], size: tuple[int, int] = (32, 32)) -> tuple[Tensor, Tensor]:
    """An image (3, H, W) with boxes (colour, top, left, height, width) in pixels, and the colour's number of every patch of 4."""
    names = list(COLOURS)
    numbers = torch.full(size, names.index(ground))
    for name, top, left, height, width in boxes:
        numbers[top : top + height, left : left + width] = names.index(name)
    noise = 0.1 * torch.randn(3, *size, generator=torch.Generator().manual_seed(len(boxes)))
    return torch.tensor(list(COLOURS.values()))[numbers].permute(2, 0, 1) + noise, numbers[::4, ::4]


def scenes() -> tuple[Tensor, Tensor]:
    """Boxes near the middle on a ground: images (5, 3, 32, 32), and which colour each patch has."""
    made = [
        painted("blue", ("red", 8, 12, 16, 12)),
        painted("blue", ("red", 12, 8, 12, 16)),
        painted("blue", ("red", 8, 8, 8, 20), ("red", 16, 12, 8, 8)),
        painted("blue"),
        painted("red", ("blue", 0, 0, 4, 32), ("blue", 28, 0, 4, 32)),
    ]
    return torch.stack([image for image, _ in made]), torch.stack([truth for _, truth in made])


def test_a_number_means_the_same_in_every_image_and_the_first_is_in_the_middle() -> None:
    images, truth = scenes()
    (labels,) = concepts(encoder(), images, (2,))
    assert (labels.shape, labels.dtype) == (truth.shape, torch.int64)
    assert torch.equal(labels == 0, truth == 0)  # red is in the middle


def test_grids_need_not_be_square_nor_of_the_encoders_own_size() -> None:
    image, truth = painted("green", ("blue", 8, 20, 16, 20), size=(32, 64))
    for options in ({}, {"class_token": False, "global_pool": ""}, {"reg_tokens": 2}, {"global_pool": "avg"}):
        (labels,) = concepts(encoder(**options), image[None], (2,))
        assert torch.equal(labels[0] == 0, truth == 2)


def test_the_order_of_the_images_has_no_say() -> None:
    images, _ = scenes()
    images = images + torch.randn(images.shape, generator=torch.Generator().manual_seed(3))  # no clear clusters any more
    order = torch.tensor([3, 0, 4, 2, 1])
    vit = encoder()
    for seed in range(3):
        assert torch.equal(concepts(vit, images[order], seed=seed), concepts(vit, images, seed=seed)[:, order])


def test_equal_seeds_give_equal_labels() -> None:
    vit, images = encoder(), torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    first = concepts(vit, images, (5, 6), seed=1)
    torch.manual_seed(77)
    assert torch.equal(concepts(vit, images, (5, 6), seed=1), first)
    assert any(not torch.equal(concepts(vit, images, (5, 6), seed=seed), first) for seed in range(2, 6))


def test_more_clusters_keep_the_numbers_of_fewer() -> None:
    made = [
        painted("blue", ("red", 8, 8, 8, 16), ("pink", 16, 8, 8, 16)),
        painted("blue", ("pink", 8, 8, 12, 16), ("green", 0, 0, 8, 8)),
        painted("blue", ("red", 8, 4, 16, 20), ("green", 24, 24, 8, 8)),
    ]
    images, truth = torch.stack([image for image, _ in made]), torch.stack([names for _, names in made])
    labels = concepts(encoder(), images, (2, 3, 4))
    for fewer, more in pairwise(labels):
        for number in fewer.unique():
            inside = more[fewer == number]
            assert (inside == number).float().mean() >= 0.5  # most of it is still itself
    assert [int(one.max()) for one in labels] == [1, 2, 3]
    blue = labels[:, truth == 2]
    assert (blue == blue[0, 0]).all()  # refined elsewhere, it is blue throughout
    assert len({tuple(labels[2][truth == colour].unique().tolist()) for colour in range(4)}) == 4


def test_only_the_direction_of_a_token_counts() -> None:
    vit = encoder()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    before = concepts(vit, images)
    handle = vit.norm.register_forward_hook(lambda _, __, out: out * torch.linspace(0.2, 3, out.shape[1])[None, :, None])
    assert torch.equal(concepts(vit, images), before)
    handle.remove()


@pytest.mark.parametrize("clusters", [(), (1, 2), (3, 2), (2, 2), (2, 65), (2.0,), (True, 2)])
def test_clusters_that_cannot_be_are_refused(clusters: Any) -> None:
    with pytest.raises(ValueError, match="ascending whole numbers from 2 to 64, the patches"):
        concepts(encoder(), torch.randn(1, 3, 32, 32), clusters)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[train\]'"):
        concepts(encoder(), torch.randn(1, 3, 32, 32))


# ---------------------------------------------------------------- learnt concepts


def head(classes: int = 12) -> gm.ConceptHead:
    torch.manual_seed(5)
    return gm.ConceptHead(32, classes, hidden=16, bottleneck=8)


def test_probabilities_are_means_over_the_chosen_patches() -> None:
    vit, one = encoder(reg_tokens=1), head()
    images, truth = scenes()
    center = torch.linspace(-0.1, 0.1, 12)
    where = truth == 0
    found = concept_probabilities(vit, one, images, where, center=center, temperature=0.07)
    assert (found.shape, found.dtype) == ((5, 12), torch.float32)
    with torch.no_grad():
        for number in range(5):
            logits = one(vit.forward_features(images[number : number + 1])[0, 2:])  # (N, K) behind class token and register
            every = ((logits - center) / 0.07).softmax(-1)
            chosen = every[where[number].flatten()]
            wanted = chosen.mean(0) if len(chosen) else torch.zeros(12)
            assert torch.allclose(found[number], wanted, atol=1e-5)
    sums = found.sum(1)
    assert torch.allclose(sums[[0, 1, 2, 4]], torch.ones(4), atol=1e-5)
    assert sums[3] == 0  # nothing there is red


def test_without_a_centre_nothing_is_taken_off() -> None:
    vit, one, (images, truth) = encoder(), head(), scenes()
    given: dict[str, Any] = {"vit": vit, "head": one, "images": images, "where": truth == 2}
    plain = concept_probabilities(**given)
    assert torch.allclose(plain, concept_probabilities(**given, center=torch.zeros(12)))
    assert not torch.allclose(plain, concept_probabilities(**given, center=torch.linspace(-1, 1, 12)))


def test_a_model_in_training_is_asked_in_evaluation_mode() -> None:
    vit, one, (images, truth) = encoder(proj_drop_rate=0.5), head(), scenes()
    calm = concept_probabilities(vit, one, images, truth == 2), concepts(vit, images)
    vit.train()
    one.train()
    assert torch.equal(concept_probabilities(vit, one, images, truth == 2), calm[0])
    assert torch.equal(concepts(vit, images), calm[1])
    assert vit.training
    assert one.training


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"where": torch.ones(5, 8, 8)}, "where is torch.float32"),
        ({"where": torch.ones(5, 8, 4, dtype=torch.bool)}, r"where is torch.bool \(5, 8, 4\)"),
        ({"temperature": 0.0}, "temperature=0.0 is not above 0"),
        ({"head": gm.ConceptHead(24, 12, hidden=16, bottleneck=8)}, "tokens have shape"),
        ({"images": torch.randn(5, 1, 32, 32)}, "images have shape"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], says: str) -> None:
    images, truth = scenes()
    given: dict[str, Any] = {"vit": encoder(), "head": head(), "images": images, "where": truth == 0, **change}
    with pytest.raises(ValueError, match=says):
        concept_probabilities(**given)
