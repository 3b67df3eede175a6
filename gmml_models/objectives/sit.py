"""SiT: restore the manipulated pixels, and distinguish the image from all others."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from gmml_aug import Corruption, presets
from gmml_models.losses import contrastive_loss
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.heads import check_sizes
from gmml_models.models.patches import Target
from gmml_models.objectives.build import build_autoencoder
from gmml_models.objectives.objective import Loss, Objective, Teacher, computing_as
from gmml_models.schedule import cosine


@final
class SiT(Objective):
    """Self-supervised vision transformer: contrast between the class tokens of two views, plus masked reconstruction.

    The student sees both views corrupted, and the teacher sees both clean. The loss is `contrastive_loss` of the student of one
    view against the teacher of the other, in both directions, plus ``reconstruction_weight`` times the mean `masked_l1` of both.
    Its parts are ``contrast`` and ``reconstruction``. It takes exactly two views of one size, and at least two images. All images
    of the batch, and of the batches of all processes, are negatives, so gradient accumulation reduces their number.

    Args:
        encoder: a name or a timm `VisionTransformer` with a class token, or an autoencoder, which is then trained itself.
        corrupt: the corruption of the views; `gmml_aug.presets.sit` with the autoencoder's mean and std by default.
        decoder: as in `GMMLAutoencoder`; "release" by default.
        blocks: as in `GMMLAutoencoder`; by default only the last one.
        reconstruction_weight: weight of the reconstruction in the loss; the release uses 5 on small data.
        temperature: the temperature of the contrastive loss.
        momentum: the teacher's momentum at the start; it rises to 1 along a cosine.
        hidden: width of the hidden layers of the contrastive head.
        out: width of the embedding.
        mean: as in `GMMLAutoencoder`.
        std: as in `GMMLAutoencoder`.
        target: as in `GMMLAutoencoder`.
        loss: the comparison of the reconstruction: ``"l1"`` or ``"l2"``.
        options: ``img_size``, ``patch_size``, ``in_chans``, and arguments of timm's `VisionTransformer`.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: `GMMLAutoencoder` refuses an argument; the encoder has no class token; a value is out of range; or options
            were given together with an autoencoder.

    Source:
        The code published by the authors of SiT. Passing both views through the batch norms together is our choice.
    """

    def __init__(
        self,
        encoder: str | VisionTransformer | GMMLAutoencoder,
        *,
        corrupt: Corruption | None = None,
        decoder: str | None = None,
        blocks: Sequence[int] | None = None,
        reconstruction_weight: float = 1.0,
        temperature: float = 0.2,
        momentum: float = 0.996,
        hidden: int = 4096,
        out: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: Target | None = None,
        loss: Loss = "l1",
        **options: Any,
    ) -> None:
        autoencoder = build_autoencoder(
            "SiT",
            encoder,
            blocks=blocks,
            decoder=decoder,
            mean=mean,
            std=std,
            target=target,
            default="release",
            last=True,
            options=options,
        )
        super().__init__(autoencoder, presets.sit(values=(autoencoder.mean, autoencoder.std)) if corrupt is None else corrupt, loss)
        if not autoencoder.encoder.has_class_token:
            raise ValueError("SiT: the encoder has no class token to contrast. Give one with class_token=True, or use GMML.")
        for name, value, least in (("reconstruction_weight", reconstruction_weight, 0.0), ("temperature", temperature, 1e-6)):
            if not least <= value < math.inf:
                raise ValueError(
                    f"SiT: {name}={value} is not a finite number of at least {least:g}. Give, for example, {name}=1.0."
                )
        self.reconstruction_weight = reconstruction_weight
        self.temperature = temperature
        self.head = ContrastiveHead(autoencoder.encoder.embed_dim, hidden, out)
        self.teacher = Teacher(autoencoder, self.head, momentum)

    def forward(self, views: Sequence[Tensor], *, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss, and the parts ``contrast`` and ``reconstruction``; see `Objective`."""
        sizes = self._sizes(views, keys)
        if len(views) != 2 or len(sizes) != 1:
            shapes = ", ".join(str(tuple(view.shape)) for view in views)
            raise ValueError(
                f"SiT: the objective compares two views of one size, but there are {len(views)}: {shapes}. Give two views of "
                "equal size."
            )
        if len(views[0]) < 2:
            raise ValueError(
                "SiT: a batch of one has no other image to contrast with. Give at least two images (drop_last=True in the "
                "DataLoader)."
            )
        clean, corrupted, mask = self._batch(views, keys, sizes[0])
        encoded = self.autoencoder.encode(corrupted)
        reconstruction = self._error(self.autoencoder.decode(encoded), clean, mask).mean()
        student_1, student_2 = self.head(encoded.cls).chunk(2)
        with torch.no_grad(), computing_as(clean):
            teacher_1, teacher_2 = self.teacher.head(self.teacher.autoencoder.encode(clean, ()).cls).chunk(2)
        contrast = contrastive_loss(student_1, student_2, teacher_1, teacher_2, temperature=self.temperature)
        loss = contrast + self.reconstruction_weight * reconstruction
        return loss, {"contrast": contrast.detach(), "reconstruction": reconstruction.detach()}

    def after_step(self, progress: float) -> None:
        """Move the teacher; see `Objective`."""
        super().after_step(progress)
        self.teacher.follow(self.autoencoder, self.head, cosine(self.teacher.momentum, 1.0, progress))

    @torch.no_grad()
    def discard(self) -> None:
        """Restore running statistics of batch norms after a batch with NaN or infinity; see `Objective`."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
                module.running_mean.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
                assert module.running_var is not None
                module.running_var.nan_to_num_(nan=1.0, posinf=1.0, neginf=1.0)

    def exported(self) -> GMMLAutoencoder:
        """The teacher's autoencoder."""
        return self.teacher.autoencoder


@final
class ContrastiveHead(nn.Module):
    """The head that maps the class token of an image to the embedding for the contrast.

    The layers are linear, batch norm, ReLU; linear, batch norm, GELU; linear, batch norm without affine parameters.

    Args:
        width: d, the width of the class token.
        hidden: width of the two hidden layers.
        out: width of the embedding.

    Shapes:
        class tokens (B, d), float -> (B, out).

    Raises:
        ValueError: a size is below 1; at the call, the shape is wrong, or there is a single image while training.

    Source:
        The code published by the authors of SiT.
    """

    def __init__(self, width: int, hidden: int = 4096, out: int = 256) -> None:
        super().__init__()
        check_sizes("ContrastiveHead", width=width, hidden=hidden, out=out)
        self.width = width
        self.layers = nn.Sequential(
            nn.Linear(width, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            nn.GELU(),
            nn.Linear(hidden, out),
            nn.BatchNorm1d(out, affine=False),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Compute the embeddings (B, out) of class tokens (B, d)."""
        if tokens.ndim != 2 or tokens.shape[1] != self.width:
            raise ValueError(
                f"ContrastiveHead: tokens have shape {tuple(tokens.shape)}, not (B, {self.width}). Give class tokens of the "
                f"encoder, or build the head with width={tokens.shape[-1] if tokens.ndim else 0}."
            )
        if self.training and len(tokens) < 2:
            raise ValueError(
                f"ContrastiveHead: batch norm needs at least two images in training, but the batch holds {len(tokens)}. Give more "
                "images (drop_last=True in the DataLoader), or call eval()."
            )
        embedding: Tensor = self.layers(tokens)
        return embedding
