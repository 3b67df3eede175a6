"""What every training is told: model, optimiser, devices, how often to save."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gmml_models.data.config import FREE, DataConfig
from gmml_models.errors import UsageError

Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """What every training has: model, optimiser, engine, record."""

    kind: ClassVar[str] = "train"

    out: Path = Path("runs/run")
    """Folder of the run: config, checkpoints, losses, pictures, weights. The same command again goes on where it stopped."""
    model: str = "vit_small_patch16_224"
    """Encoder: ours (vit_micro_patch8_64, ...) or a timm vision transformer."""
    img_size: int | None = None
    """Side of the input; that of the model by default."""
    patch_size: int | None = None
    """Side of a patch; that of the model by default."""
    epochs: int = 800
    """Times that every image is seen."""
    batch_size: int = 256
    """Images a step, over all processes and accumulated parts."""
    accumulate: int | None = None
    """Parts that a step is cut into, to save memory; by default as few as fit."""
    lr: float = 5e-4
    """Learning rate at 256 images a step (GMML 3.1); it grows with batch_size / 256."""
    min_lr: float = 1e-6
    """Where the cosine ends."""
    warmup_epochs: float = 10.0
    """Epochs over which the learning rate rises from zero."""
    weight_decay: float = 0.04
    """At the start (GMML 3.1)."""
    weight_decay_end: float = 0.4
    """At the end of its cosine (GMML 3.1)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW: memory of the gradient, and of its square."""
    clip: float | None = 3.0
    """Largest norm of each parameter's gradient (the release's); None: no clipping."""
    drop_path: float = 0.1
    """Share of residual branches left out in training, rising with depth (the release's)."""
    seed: int = 0
    """All chance of the run follows from it."""
    precision: Precision = "auto"
    """auto: bf16 on a GPU, else fp32."""
    cpu: bool = False
    """Stay on the CPU even where a GPU is at hand."""
    compile: bool = False
    """torch.compile the networks; pays on a GPU."""
    fsdp: bool = False
    """Shard parameters and optimiser over the processes (FSDP 2)."""
    grad_checkpointing: bool = False
    """Compute activations twice instead of keeping them."""
    checkpoint_every: int = field(default=0, metadata=FREE)
    """Steps between checkpoints; 0: one about every five minutes, and at the end."""
    keep: int = field(default=1, metadata=FREE)
    """How many of the newest checkpoints stay; 0: one while the run lasts, none once it is finished."""
    overwrite: bool = field(default=False, metadata=FREE)
    """Begin anew where `out` holds a run, whose files are removed; without it the run goes on."""
    stop_after: float | None = field(default=None, metadata=FREE)
    """Minutes after which the run writes a checkpoint and stops; the same command goes on."""
    dry_run: bool = field(default=False, metadata=FREE)
    """Print parameters, memory, steps and an estimate of the time; train nothing."""

    def __post_init__(self) -> None:
        """A folder may be given as text."""
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out).expanduser())


def check(config: TrainConfig) -> None:
    """Refuse what no run could be made of.

    Raises:
        UsageError: naming the field, what came and what is allowed.
    """
    who = "gmml"
    for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("in_chans", 1), ("workers", 0), ("keep", 0)):
        if getattr(config, name) is not None and getattr(config, name) < least:
            raise UsageError(f"{who}: {name}={getattr(config, name)} is below {least}. Give a whole number from {least}.")
    if config.accumulate is not None and config.batch_size % config.accumulate:
        raise UsageError(
            f"{who}: batch_size={config.batch_size} is not a multiple of accumulate={config.accumulate}. Give a multiple, so that "
            "all parts of a step weigh the same."
        )
    for name in ("lr", "min_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "drop_path", "checkpoint_every"):
        if not 0 <= getattr(config, name) < float("inf"):
            raise UsageError(f"{who}: {name}={getattr(config, name)} is not a finite number from 0. Give for example 0.")
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        raise UsageError(f"{who}: betas={config.betas}. Give two numbers from 0 and below 1, for example 0.9 0.999.")
    if config.clip is not None and not config.clip > 0:
        raise UsageError(f"{who}: clip={config.clip} is not above 0. Give for example 3.0, or None for no clipping.")
