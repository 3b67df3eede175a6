"""The options of every training run: model, optimiser, devices, checkpoints."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gmml_models.data.config import FREE, DataConfig
from gmml_models.errors import UsageError

Precision = Literal["auto", "bf16", "fp32"]
OrAuto = int | Literal["auto"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig(DataConfig):
    """The options that all training recipes share: model, optimiser, engine, logs."""

    kind: ClassVar[str] = "train"

    out: Path = Path("runs/run")
    """Folder of the run: config, checkpoints, losses, pictures, weights. Run the same command again to resume."""
    model: str = "vit_small_patch16_224"
    """Encoder: one of ours, such as vit_micro_patch8_64, or one of timm's vision transformers. Auto chooses one that suits the
    device."""
    img_size: int | None = None
    """Side of the input in pixels; by default that of the model."""
    patch_size: int | None = None
    """Side of a patch in pixels; by default that of the model."""
    epochs: OrAuto = 800
    """Number of epochs; auto derives it from the number of images."""
    batch_size: OrAuto = 256
    """Images per step, over all processes and accumulated parts; auto: the recipe's number, fewer for few images."""
    accumulate: OrAuto | None = None
    """Gradient accumulation: number of parts that a step is computed in; by default as few as keep activations within 1 GiB, or
    60 % of a GPU; auto: as few as also fit into the memory that is free."""
    lr: float = 5e-4
    """Learning rate for 256 images per step (GMML 3.1); it is multiplied by batch_size / 256."""
    min_lr: float = 1e-6
    """Learning rate at the end of its cosine schedule."""
    warmup_epochs: float = 10.0
    """Epochs of linear warm-up of the learning rate."""
    weight_decay: float = 0.04
    """Weight decay at the start (GMML 3.1)."""
    weight_decay_end: float = 0.4
    """Weight decay at the end of its cosine schedule (GMML 3.1)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Beta 1 and beta 2 of AdamW."""
    clip: float | None = 3.0
    """Largest gradient norm of each parameter (the authors' release); None for no clipping."""
    drop_path: float = 0.1
    """Stochastic depth: share of residual branches dropped in training, increasing with depth (the authors' release)."""
    seed: int = 0
    """Seed of all random numbers in the run."""
    precision: Precision = "auto"
    """Numerical precision; auto is bf16 on a GPU, otherwise fp32."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""
    compile: bool = False
    """Compile the networks with torch.compile; worthwhile on a GPU."""
    fsdp: bool = False
    """Shard parameters and optimiser state over the processes (FSDP 2)."""
    grad_checkpointing: bool = False
    """Recompute activations instead of keeping them, to save memory."""
    checkpoint_every: int = field(default=0, metadata=FREE)
    """Steps between checkpoints; 0 for one about every five minutes and one at the end."""
    keep: int = field(default=1, metadata=FREE)
    """Number of newest checkpoints to keep; 0 keeps one while the run lasts and none once it is finished."""
    overwrite: bool = field(default=False, metadata=FREE)
    """Start again if the folder holds a run, and remove its files; by default the run is resumed."""
    stop_after: float | None = field(default=None, metadata=FREE)
    """Minutes after which the run writes a checkpoint and stops; run the same command again to resume."""
    dry_run: bool = field(default=False, metadata=FREE)
    """Train nothing; print parameters, memory, steps and an estimate of the time."""

    def __post_init__(self) -> None:
        """Accept a folder given as text."""
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out).expanduser())


def epochs_of(config: TrainConfig) -> int:
    """The number of epochs of a run, once it is known."""
    return known(config.epochs)


def batch_of(config: TrainConfig) -> int:
    """The number of images of a step, once it is known."""
    return known(config.batch_size)


def parts_of(config: TrainConfig) -> int:
    """The number of parts of a step, once it is known."""
    return known(config.accumulate or 1)


def known(value: OrAuto) -> int:
    """The number that was stated or chosen."""
    assert value != "auto", "gmml_models.recipes.auto chooses before anything counts on it"
    return value


def check(config: TrainConfig) -> None:
    """Refuse options with impossible values.

    Raises:
        UsageError: a value is not allowed; the message names the field, its value and what is allowed.
    """
    who = "gmml"
    for name, least in (("epochs", 1), ("batch_size", 1), ("accumulate", 1), ("in_chans", 1), ("workers", 0), ("keep", 0)):
        value = getattr(config, name)
        if value is not None and value != "auto" and value < least:
            raise UsageError(f"{who}: {name}={value} is below {least}. Give a whole number from {least}.")
    if "auto" not in (config.batch_size, config.accumulate) and batch_of(config) % parts_of(config):
        raise UsageError(
            f"{who}: batch_size={config.batch_size} is not a multiple of accumulate={config.accumulate}. Give a multiple, so that "
            f"all parts of a step have the same weight."
        )
    for name in ("lr", "min_lr", "warmup_epochs", "weight_decay", "weight_decay_end", "drop_path", "checkpoint_every"):
        if not 0 <= getattr(config, name) < float("inf"):
            raise UsageError(f"{who}: {name}={getattr(config, name)} is not a finite number of at least 0. Give, for example, 0.")
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        raise UsageError(f"{who}: betas={config.betas}. Give two numbers of at least 0 and below 1, for example 0.9 0.999.")
    if config.clip is not None and not config.clip > 0:
        raise UsageError(f"{who}: clip={config.clip} is not above 0. Give, for example, 3.0, or None for no clipping.")
