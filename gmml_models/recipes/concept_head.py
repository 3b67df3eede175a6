"""The concept head of a run of MC-SSL: it is used for pretraining only, so only the run's checkpoints hold it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gmml_models.errors import UsageError
from gmml_models.models.heads import ConceptHead
from gmml_models.models.pretrained import fill
from gmml_models.train import checkpoint

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

_HEAD, _ENCODER, _CENTER = "model/teacher.head.patch.", "model/teacher.autoencoder.encoder.", "model/patch_loss.center"


class Learnt(NamedTuple):
    """The concepts of a teacher.

    Attributes:
        head: the concept head for its patch tokens, in evaluation mode.
        center: (K,) the centre, which is subtracted from the logits.
    """

    head: ConceptHead
    center: Tensor


def open_concept_head(weights: str, encoder: VisionTransformer, *, who: str) -> Learnt:
    """Load the teacher's concept head from the newest checkpoint of the run that wrote a folder of weights.

    Args:
        weights: the folder that the run wrote, next to its ``checkpoints``.
        encoder: the encoder loaded from that folder; the checkpoint must hold the same one.
        who: the name of the command, for errors.

    Raises:
        UsageError: there is no checkpoint, or it is damaged, has no concepts, or holds another encoder.
    """
    run = Path(weights).resolve().parent
    newest = checkpoint.newest(run / "checkpoints") if Path(weights).is_dir() else None
    if newest is None:
        raise UsageError(
            f"{who}: the concept head is needed, but {weights} has none: weights hold encoder and decoder, and only the "
            f"checkpoints of a run hold the head. Give the folder of a run of gmml pretrain --method mc_ssl that still has its "
            f"checkpoints."
        )
    tensors = checkpoint.read(newest)
    found = {name.removeprefix(_HEAD): tensor for name, tensor in tensors.items() if name.startswith(_HEAD)}
    if "concepts" not in found or _CENTER not in tensors:
        raise UsageError(
            f"{who}: {run} has learnt no concepts. Give a run of gmml pretrain --method mc_ssl, with --terms both or concepts."
        )
    kept = encoder.state_dict()
    if any(not torch.equal(tensor, tensors.get(_ENCODER + name, tensor[:0])) for name, tensor in kept.items()):
        raise UsageError(
            f"{who}: the newest checkpoint of {run} is not the one that {weights} was made from, so head and encoder do not "
            "belong together. Resume the run with the command that started it, and let it finish."
        )
    hidden, width = found["layers.0.weight"].shape
    classes, bottleneck = found["concepts"].shape
    head = ConceptHead(width, classes, hidden, bottleneck)
    fill(head, found, str(newest))
    return Learnt(head.eval(), tensors[_CENTER].float())
