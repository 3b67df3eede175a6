"""MC-SSL0.0: restore the image, and predict the teacher's concept of every patch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal, final, get_args

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from gmml_aug import Corruption, presets
from gmml_models.losses import ConceptLoss
from gmml_models.models.autoencoder import GMMLAutoencoder
from gmml_models.models.decoders import Encoded
from gmml_models.models.heads import ConceptHead
from gmml_models.models.patches import Target
from gmml_models.objectives.build import build_autoencoder
from gmml_models.objectives.objective import Loss, Objective, Teacher, Views, computing_as
from gmml_models.schedule import cosine

Terms = Literal["both", "reconstruction", "concepts"]


@final
class MCSSL(Objective):
    """Multi-concept self-supervised learning: reconstruction, and prediction of a teacher's concepts of the patches.

    The student sees all views corrupted; the teacher sees the clean views of the first view's size. Smaller, *local* views are
    seen by the student only. The loss is the plain mean of its parts:

    - ``reconstruction``: `l1` between the restored and the clean image, averaged over all views.
    - ``concepts``: `ConceptLoss` of the student's patch tokens against the teacher's of the same view, token by token. Local views
      are not used: the teacher does not see them, and their patches are elsewhere in the image.
    - ``cls``, with ``cls=True``: `ConceptLoss` of the student's class token of every view against the teacher's of every *other*
      view that it has seen.

    Args:
        encoder: a name or a timm `VisionTransformer`, or an autoencoder, which is then trained itself.
        classes: K, the number of concepts. The paper finds that few concepts, for example 1024, are enough for patches.
        terms: ``"both"``; ``"reconstruction"``, which has no head and no teacher and exports the student itself; or
            ``"concepts"``, with which the decoder gets no gradient and does not change.
        cls: True to compare class tokens too.
        corrupt: the corruption of the views; `gmml_aug.presets.mc_ssl` with the autoencoder's mean and std by default.
        decoder: as in `GMMLAutoencoder`; "mc_ssl" by default.
        blocks: as in `GMMLAutoencoder`; by default only the last one.
        masked: True to compute the reconstruction loss only where the images were manipulated, as in `masked_l1`.
        momentum: the teacher's momentum at the start; it rises to 1 along a cosine.
        student_temperature: the temperature that divides the student's logits.
        teacher_temperature: the temperature that divides the teacher's logits.
        center_momentum: the share of the centre that is kept at each step.
        freeze_last: share of the run during which the last layer of the student's head is frozen, 1 / epochs for the first epoch.
            Until then its gradient is zero; weight decay changes only the lengths of its rows, which have no effect.
        hidden: width of the hidden layers of the concept head.
        bottleneck: width before the last layer of the head.
        mean: as in `GMMLAutoencoder`.
        std: as in `GMMLAutoencoder`.
        target: as in `GMMLAutoencoder`.
        loss: the comparison of the reconstruction: ``"l1"`` or ``"l2"``.
        options: ``img_size``, ``patch_size``, ``in_chans``, and arguments of timm's `VisionTransformer`.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: `GMMLAutoencoder` refuses an argument; a value is out of range; ``cls`` is used without concepts or class
            token; or options were given together with an autoencoder.

    Source:
        MC-SSL 3.2: "GMML-based manipulated images" for the student, clean ones for the teacher; 3.2.1 for the reconstruction from
        the last block; 3.2.2 for the concepts "corresponding to the i-th token"; 4.1 for temperatures, momentum, teacher and the
        "simple averaging"; appendix A for ``terms``, and that the teacher "is only required for the patch classification task".
        The paper uses several crops (4) and does not say how: the use of local views is our choice for patches, and that of DINO
        and the release for class tokens. ``cls`` with a separate last layer, centre momentum 0.9, K = 8192 and ``freeze_last``
        come from the release. `gmml_aug.presets.mc_ssl` gives the sources of the numbers of the corruption.
    """

    learns: Tensor  # () 1 where the last layer of the head learns, else 0

    def __init__(
        self,
        encoder: str | VisionTransformer | GMMLAutoencoder,
        *,
        classes: int = 8192,
        terms: Terms = "both",
        cls: bool = False,
        corrupt: Corruption | None = None,
        decoder: str | None = None,
        blocks: Sequence[int] | None = None,
        masked: bool = False,
        momentum: float = 0.996,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
        freeze_last: float = 0.0,
        hidden: int = 2048,
        bottleneck: int = 256,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        target: Target | None = None,
        loss: Loss = "l1",
        **options: Any,
    ) -> None:
        if terms not in get_args(Terms):
            raise ValueError(f"MCSSL: terms={terms!r} is unknown. Allowed: {', '.join(map(repr, get_args(Terms)))}.")
        if cls and terms == "reconstruction":
            raise ValueError(
                "MCSSL: cls=True compares concepts, but terms='reconstruction' has none. Give terms='both' or 'concepts'."
            )
        if not 0.0 <= freeze_last <= 1.0:
            raise ValueError(
                f"MCSSL: freeze_last={freeze_last} is outside [0, 1]. Give a share of the run, for example 1 / epochs."
            )
        autoencoder = build_autoencoder(
            "MCSSL",
            encoder,
            blocks=blocks,
            decoder=decoder,
            mean=mean,
            std=std,
            target=target,
            default="mc_ssl",
            last=True,
            options=options,
        )
        if cls and not autoencoder.encoder.has_class_token:
            raise ValueError("MCSSL: cls=True, but the encoder has no class token. Leave it out, or give class_token=True.")
        super().__init__(
            autoencoder, presets.mc_ssl(values=(autoencoder.mean, autoencoder.std)) if corrupt is None else corrupt, loss
        )
        self.terms, self.cls, self.masked, self.freeze_last = terms, cls, masked, freeze_last
        self.head: ConceptHeads | None = None
        self.teacher: Teacher[ConceptHeads] | None = None
        self.patch_loss: ConceptLoss | None = None
        self.cls_loss: ConceptLoss | None = None
        if terms == "reconstruction":
            self._check_depth()
            return
        if terms == "concepts":
            autoencoder.decoder.requires_grad_(False)
        self.head = ConceptHeads(autoencoder.encoder.embed_dim, classes, hidden, bottleneck, cls=cls)
        self.teacher = Teacher(autoencoder, self.head, momentum)
        self.patch_loss = ConceptLoss(
            classes, student_temperature=student_temperature, teacher_temperature=teacher_temperature, momentum=center_momentum
        )
        self.cls_loss = copy.deepcopy(self.patch_loss) if cls else None
        # what each rank observed is its own until the step; DistributedDataParallel would hand out that of the first
        self._ddp_params_and_buffers_to_ignore = ["patch_loss.observed", "cls_loss.observed"]
        self.register_buffer("learns", torch.tensor(float(freeze_last == 0.0)))

    def forward(self, views: Sequence[Tensor], *, keys: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and those of the parts ``reconstruction``, ``concepts`` and ``cls`` that are used; see `Objective`."""
        sizes = self._sizes(views, keys)
        if self.cls and len(views) < 2:
            raise ValueError(
                "MCSSL: cls=True compares the class tokens of different views, but there is only 1 view. Give at least two views."
            )
        if self.terms == "concepts" and not self.cls and len(sizes) > 1:
            raise ValueError(
                "MCSSL: with terms='concepts', nothing would be learnt from local views (those whose size differs from the "
                "first). Leave them out, or give terms='both' or cls=True."
            )
        batches = [self._batch(views, keys, numbers) for numbers in sizes]
        encoded = [self.autoencoder.encode(batch.corrupted, None if self.reconstructs else ()) for batch in batches]
        parts: dict[str, Tensor] = {}
        if self.reconstructs:
            errors = [self._errors(batch, seen) for batch, seen in zip(batches, encoded, strict=True)]
            parts["reconstruction"] = torch.cat(errors).mean()
        if self.teacher is not None:
            parts.update(self._concepts(sizes, encoded, batches[0].clean))
        return torch.stack(list(parts.values())).mean(), {name: part.detach() for name, part in parts.items()}

    def after_step(self, progress: float) -> None:
        """Move the teacher and the centres; see `Objective`."""
        super().after_step(progress)
        if self.teacher is None or self.head is None:
            return
        self.teacher.follow(self.autoencoder, self.head, cosine(self.teacher.momentum, 1.0, progress))
        for loss in self._losses():
            loss.update()
        self.learns.fill_(float(progress >= self.freeze_last * (1.0 - 1e-9)))  # steps done / steps is a rounded number

    def discard(self) -> None:
        """Discard the teacher's logits of the calls since the last step; see `Objective`."""
        for loss in self._losses():
            loss.discard()

    def exported(self) -> GMMLAutoencoder:
        """The teacher's autoencoder, or the student's if there is no teacher."""
        return self.autoencoder if self.teacher is None else self.teacher.autoencoder

    @property
    def reconstructs(self) -> bool:
        """True if a decoder is trained."""
        return self.terms != "concepts"

    def _errors(self, batch: Views, encoded: Encoded) -> Tensor:
        """(V*B,) reconstruction error of each image."""
        restored = self.autoencoder.decode(encoded)
        return self._error(restored, batch.clean, batch.mask if self.masked else None)

    def _concepts(self, sizes: list[list[int]], encoded: list[Encoded], clean: Tensor) -> dict[str, Tensor]:
        """The losses of the student's patch and class tokens against those of the teacher on clean images of the first size."""
        assert self.teacher is not None
        assert self.head is not None
        assert self.patch_loss is not None
        every = torch.cat([one.cls for one in encoded if one.cls is not None]) if self.cls else None
        student, student_cls = self.head(encoded[0].patches, every, self.learns if self.freeze_last else None)
        with torch.no_grad(), computing_as(clean):
            known = self.teacher.autoencoder.encode(clean, ())
            target, target_cls = self.teacher.head(known.patches, known.cls if self.cls else None)
        parts = {"concepts": self.patch_loss(student, target)}  # of (V*B, N, K)
        if self.cls_loss is not None:
            order = [number for numbers in sizes for number in numbers]
            seen = dict(zip(order, student_cls.chunk(len(order)), strict=True))  # (B, K) a view
            wanted = dict(zip(sizes[0], target_cls.chunk(len(sizes[0])), strict=True))
            both = [(seen[one], wanted[other]) for other in wanted for one in seen if one != other]
            parts["cls"] = self.cls_loss(torch.stack([one for one, _ in both]), torch.stack([other for _, other in both]))
        if self.training:
            self.patch_loss.observe(target)
            if self.cls_loss is not None:
                self.cls_loss.observe(target_cls)
        return parts

    def _losses(self) -> list[ConceptLoss]:
        return [loss for loss in (self.patch_loss, self.cls_loss) if loss is not None]


@final
class ConceptHeads(nn.Module):
    """A `ConceptHead` for patch tokens that also handles class tokens, with a separate last layer for them.

    Args:
        width: d, the width of the tokens.
        classes: K, the number of concepts, for patch tokens and for class tokens.
        hidden: width of the hidden layers.
        bottleneck: width before the last layer.
        cls: True to add a last layer for class tokens.

    Source:
        MC-SSL 3.2.2; the two last layers come from the release.
    """

    def __init__(self, width: int, classes: int, hidden: int, bottleneck: int, *, cls: bool) -> None:
        super().__init__()
        self.patch = ConceptHead(width, classes, hidden, bottleneck)
        self.cls = nn.Parameter(torch.randn(classes, bottleneck)) if cls else None

    def forward(self, patches: Tensor, cls: Tensor | None, learns: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Compute the logits (..., K) of patch tokens (..., d) and of class tokens (B, d).

        Args:
            patches: patch tokens.
            cls: class tokens.
            learns: the factor that multiplies the gradient of the last layers.
        """
        found = self._logits(patches, self.patch.concepts, learns)
        return found, None if cls is None or self.cls is None else self._logits(cls, self.cls, learns)

    def _logits(self, tokens: Tensor, concepts: Tensor, learns: Tensor | None) -> Tensor:
        if learns is not None:  # a parameter that is switched off by requires_grad would be missed by DistributedDataParallel
            held = concepts.detach()
            concepts = held + (concepts - held) * learns
        return F.linear(F.normalize(self.patch.layers(tokens), dim=-1), F.normalize(concepts, dim=-1))
