"""Baselines for weights, measured on the same images: an untrained encoder of the same shape, and hand-made features."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch

from gmml_models.data.dataset import Source
from gmml_models.evaluate.baselines import HANDMADE, features_of, handmade
from gmml_models.evaluate.features import Features, features
from gmml_models.models.encoders import build_encoder, describe_encoder

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from gmml_models.data.sampling import Batch
    from gmml_models.models.pooling import Pool
    from gmml_models.recipes.labelled_data import LabelledData

Both = tuple[Features, Features]


class Compared(NamedTuple):
    """A kind of features to measure.

    Attributes:
        name: "weights", or a name in `gmml_models.evaluate.baselines.WORDS`.
        of_seed: a function that returns the features of the training and the test images for a seed.
        seeded: True if the features depend on the seed.
    """

    name: str
    of_seed: Callable[[int], Both]
    seeded: bool = False


def baselines(
    encoder: VisionTransformer,
    pool: Pool,
    batches: Callable[[Source, bool], Iterable[Batch]],
    images: LabelledData,
    *,
    last_blocks: int = 1,
    device: torch.device,
) -> list[Compared]:
    """Return all baselines in `gmml_models.evaluate.baselines.WORDS` for the images of a measurement.

    Args:
        encoder: the encoder whose shape the untrained encoder gets, and whose width is the number of components of the PCA.
        pool: the pooling of both encoders' features.
        batches: a function that returns the batches of a source, normalised for the encoder, or as pixels in [0, 1] if the second
            argument is True.
        images: the training and test images.
        last_blocks: the number of blocks whose features are concatenated, of both encoders.
        device: the device of the encoders.
    """
    assert images.test is not None
    sources = (images.train, images.test)
    known, given = (handmade(batches(source, True)) for source in sources)

    def random(seed: int) -> Both:
        blank = untrained(encoder, seed).to(device)
        train, test = (features(blank, batches(source, False), pool, last_blocks=last_blocks) for source in sources)
        return train, test

    def by_hand(pair: Both, seed: int) -> Both:
        return pair

    made = {kind: features_of(known, given, kind, components=encoder.embed_dim) for kind in HANDMADE}
    return [
        Compared("untrained", _remembered(random), seeded=True),
        *(Compared(kind, partial(by_hand, pair)) for kind, pair in made.items()),
    ]


def untrained(encoder: VisionTransformer, seed: int) -> VisionTransformer:
    """Make an encoder of the same shape, with the random weights that pretraining with this seed starts from.

    Args:
        encoder: an encoder that `gmml_models.models.encoders.describe_encoder` can describe.
        seed: the seed of its weights; the state of the global generator is restored.

    Raises:
        ValueError: the encoder cannot be described.
    """
    architecture, arguments = describe_encoder(encoder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(architecture, **arguments).eval()


def _remembered(make: Callable[[int], Both]) -> Callable[[int], Both]:
    """Compute the features of each seed only once, because k-NN and probe use the same ones."""
    found: dict[int, Both] = {}

    def of_seed(seed: int) -> Both:
        if seed not in found:
            found[seed] = make(seed)
        return found[seed]

    return of_seed
