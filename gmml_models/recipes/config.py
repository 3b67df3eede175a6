"""The options of the recipes, as frozen dataclasses that are shared by code, command line and run records.

This module imports nothing that is slow to load.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gmml_models.data.config import FREE, DataConfig
from gmml_models.train.config import OrAuto, TrainConfig

Method = Literal["gmml", "sit", "mc_ssl", "autoencoder"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pretrain a vision transformer without labels, by GMML, SiT or MC-SSL.

    Defaults are those of GMML 3.1, or of the authors' release where the paper gives none.
    """

    kind: ClassVar[str] = "pretrain"

    out: Path = Path("runs/pretrain")
    """Folder of the run: config, checkpoints, losses, pictures, weights. Run the same command again to resume."""
    weights: str | None = None
    """Weights to start from, instead of `model`: a folder, a Hub name, a name in the zoo, or one of timm's vision transformers."""
    method: Method = "gmml"
    """Pretraining objective; autoencoder is the control without corruption."""
    corruption: str | None = None
    """Preset of gmml_aug, or the code of a composition as print(corrupt) shows it; by default the method's preset."""
    decoder: Literal["paper", "release", "mc_ssl"] | None = None
    """Decoder to use; by default that of the method."""
    blocks: tuple[int, ...] | None = None
    """Encoder blocks whose features are averaged for the decoder, ascending from 1 (GMML figure 7); by default the method's."""
    target: Literal["pixels", "normalised"] = "pixels"
    """Reconstruction target: pixels, or patches normalised by their own mean and standard deviation (MAE)."""
    loss: Literal["l1", "l2"] = "l1"
    """Reconstruction loss: absolute difference (GMML equation 1) or squared difference."""
    terms: Literal["both", "reconstruction", "concepts"] = "both"
    """mc_ssl: the losses to use (MC-SSL table 3)."""
    classes: int = 8192
    """mc_ssl: number of concepts; use 1024 for small data sets."""
    head_width: int | None = None
    """mc_ssl, sit: width of the head's hidden layers; by default 2048 for mc_ssl and 4096 for sit; use less for small models."""
    cls_loss: bool = False
    """mc_ssl: also compare the concepts of the class token (as in the authors' release)."""
    reconstruction_weight: float = 1.0
    """sit: weight of the reconstruction loss; use 5 for small data sets."""
    momentum: float = 0.996
    """sit, mc_ssl: momentum of the teacher at the start; it rises to 1 along a cosine."""
    views: OrAuto | None = None
    """Number of large crops per image; by default 2 for gmml, sit and with --cls-loss, else 1; auto: 1 if decoding is no
    bottleneck and the method allows it, else 2."""
    local_views: int = 0
    """mc_ssl: number of small crops per image, seen by the student only."""
    local_size: int | None = None
    """Side of the small crops in pixels; by default three sevenths of the input, in whole patches."""
    scale: tuple[float, float] = (0.05, 1.0)
    """Smallest and largest share of the image's area that a large crop covers (default: the authors' release)."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest share of the image's area that a small crop covers."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.01)
    """Strength of colour jitter: brightness, contrast, saturation, hue (the authors' release)."""
    jitter_p: float = 0.3
    """Probability of colour jitter."""
    blur_p: float = 0.1
    """Probability of a Gaussian blur of the whole view (the authors' release)."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Interpolation of the crops."""
    pictures_every: int = field(default=10, metadata=FREE)
    """Epochs between pictures of reconstructions; there is also one after the first epoch; 0 for none."""
    health_every: int = field(default=10, metadata=FREE)
    """Epochs between comparisons of the features of 256 images with the untrained encoder's; 0 for none."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Train a classifier on labelled images, from pretrained weights or from scratch.

    With one class per image it trains as in DeiT, through timm (GMML 3.1, MC-SSL 4.3); with --multi-label, as in MC-SSL 4.2.
    """

    kind: ClassVar[str] = "finetune"

    out: Path = Path("runs/finetune")
    """Folder of the run: config, checkpoints, losses, weights. Run the same command again to resume."""
    weights: str | None = None
    """A folder that pretraining wrote, a Hub name, or a name in the zoo; without it, training starts from scratch with `model`."""
    test_data: str | None = None
    """Labelled images to measure on; by default the test or val split next to the training split."""
    test_split: str | None = None
    """Subfolder or split of the test images; by default test, or else val."""
    holdout: float | None = None
    """Share of the training images of each class to measure on instead of training on them; 0.2 holds out one fifth."""
    labels: str | None = None
    """CSV of labels: first the file, then one 0/1 column per label, or the class; by default the folder's labels.csv."""
    labels_columns: tuple[str, ...] | None = None
    """Columns of the CSV that are labels (by default all with two values such as 0 and 1), or the column of the class."""
    class_level: int | None = None
    """Folder level that gives the class: 1 is the outermost, 2 the next, -1 the innermost. By default the first level with several
    folders."""
    multi_label: bool | None = None
    """Several labels per image; on by default if there is a labels.csv."""
    few_shot: float = 1.0
    """Share of the training images of each class to use, at least one of each."""
    pool: Literal["token", "mean", "both"] | None = None
    """Input of the head: class token, mean of the patch tokens, or both; by default that of the weights' method, or else the
    class token."""
    epochs: OrAuto = 200
    """Number of epochs (GMML 3.1); auto derives it from the number of images."""
    batch_size: OrAuto = 256
    """Images per step, over all processes and accumulated parts; auto: the recipe's number, fewer for few images."""
    lr: float = 5e-4
    """Learning rate for 512 images per step, as in DeiT; it is multiplied by batch_size / 512."""
    warmup_epochs: float = 5.0
    """Epochs of linear warm-up of the learning rate."""
    weight_decay: float = 0.05
    """Weight decay at the start (DeiT)."""
    weight_decay_end: float = 0.05
    """Weight decay at the end of its cosine schedule; in DeiT it is constant."""
    clip: float | None = None
    """Largest gradient norm of each parameter; by default no clipping, as in DeiT."""
    layer_decay: float = 1.0
    """Factor by which the learning rate falls per layer below the head; 1 for none (not in the papers)."""
    smoothing: float | None = None
    """Label smoothing; by default 0.1, or none with several labels."""
    mixup: float | None = None
    """Alpha of MixUp, 0 for none; by default 0.8, or none with several labels."""
    cutmix: float | None = None
    """Alpha of CutMix, 0 for none; by default 1, or none with several labels."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """AutoAugment or RandAugment policy in timm's notation; none for crops and flips only."""
    erasing: float | None = None
    """Probability of timm's RandomErasing; by default 0.25, or none with several labels."""
    scale: tuple[float, float] | None = None
    """Smallest and largest share of the image's area that a crop covers. By default 0.08 1, or the resized image with several
    labels."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    ema: float = 0.0
    """Decay of a moving average of the weights, which is then measured and saved; 0 for none."""
    test_every: int = field(default=1, metadata=FREE)
    """Epochs between measurements; 0 for none, which needs no test images."""
    keep_best: bool = field(default=True, metadata=FREE)
    """Also save the weights of the best epoch, as weights-best."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Measure weights: k-NN, linear probe, and the accuracy of a fine-tuned classifier, over several seeds."""

    weights: str = ""
    """A folder, a Hub name, or a name in the zoo."""
    test_data: str | None = None
    """Labelled images to measure on; by default the test or val split next to the training split."""
    test_split: str | None = None
    """Subfolder or split of the test images; by default test, or else val."""
    holdout: float | None = None
    """Share of the training images of each class to measure on instead of training on them; 0.2 holds out one fifth."""
    labels: str | None = None
    """CSV of labels: first the file, then one 0/1 column per label, or the class; by default the folder's labels.csv."""
    labels_columns: tuple[str, ...] | None = None
    """Columns of the CSV that are labels (by default all with two values such as 0 and 1), or the column of the class."""
    class_level: int | None = None
    """Folder level that gives the class: 1 is the outermost, 2 the next, -1 the innermost. By default the first level with several
    folders."""
    multi_label: bool | None = None
    """Several labels per image; on by default if there is a labels.csv."""
    measures: tuple[Literal["knn", "linear", "classifier"], ...] = ("knn", "linear")
    """Measurements to make; classifier needs weights written by gmml finetune."""
    baselines: bool = False
    """Also measure features that need no training: an untrained encoder of the same shape, 8 x 8 thumbnails, PCA of the pixels,
    colour histogram, HOG."""
    few_shot: float = 1.0
    """Share of the training images of each class to use, at least one of each."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds; each one selects its own few-shot images and its own held-out images for the probe."""
    k: int = 20
    """Number of neighbours."""
    pool: Literal["token", "mean", "both"] | None = None
    """Features to measure: class token, mean of the patch tokens, or both; by default those of the weights (GMML, MC-SSL: mean)."""
    last_blocks: int = 1
    """Number of blocks whose features are concatenated, counted from the last (DINO: 4)."""
    img_size: int | None = None
    """Side of the input in pixels; by default that of the weights."""
    batch_size: int = 256
    """Images per batch."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""
    out: Path = Path("runs/evaluate")
    """Folder for the table, as Markdown and JSON."""

    def __post_init__(self) -> None:
        """Accept a folder given as text."""
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out).expanduser())


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Classify new images with a classifier that gmml finetune trained."""

    images: tuple[Path, ...] = ()
    """Image files, and folders of them at any depth; or one archive."""
    weights: str = ""
    """A classifier that gmml finetune wrote: a folder, or a Hub name."""
    out: Path | None = None
    """File for the table, .csv or .json; by default it is printed as CSV."""
    top: int = 1
    """For one class per image: number of most probable classes to print."""
    threshold: tuple[float, ...] = (0.5,)
    """For several labels per image: smallest probability at which a label is predicted. One for all labels, or one per label in
    their order."""
    img_size: int | None = None
    """Side of the input in pixels; by default that of the weights."""
    batch_size: int = 64
    """Images per batch."""
    workers: int | None = None
    """Number of processes that decode images; by default one per core, at most 2, or 8 with a GPU."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""

    def __post_init__(self) -> None:
        """Accept paths given as text, and replace a ``~`` that the shell has not expanded by the home folder."""
        object.__setattr__(self, "images", tuple(Path(one).expanduser() for one in self.images))
        if self.out is not None:
            object.__setattr__(self, "out", Path(self.out).expanduser())
        if self.weights.startswith("~"):
            object.__setattr__(self, "weights", str(Path(self.weights).expanduser()))


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(DataConfig):
    """Write the features of every image to a file."""

    weights: str = ""
    """A folder, a Hub name, or a name in the zoo."""
    pool: Literal["token", "mean", "both"] | None = None
    """Class token, mean of the patch tokens, or both; by default the pooling with which the numbers on the card were measured."""
    last_blocks: int = 1
    """Number of blocks whose features are concatenated, counted from the last (DINO: 4)."""
    img_size: int | None = None
    """Side of the input in pixels; by default that of the weights."""
    batch_size: int = 256
    """Images per batch; every finished batch is kept, so that the command can be resumed."""
    cpu: bool = False
    """Use the CPU even if there is a GPU."""
    out: Path = Path("features.npz")
    """The output file, ending in .npz, .csv or .parquet; until it is complete, its parts are in a folder next to it."""

    def __post_init__(self) -> None:
        """Accept a file given as text."""
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out).expanduser())


@dataclass(frozen=True, kw_only=True)
class StatsConfig(DataConfig):
    """Compute the mean and standard deviation of each channel of a data set, for pixels in [0, 1]."""

    json: bool = False
    """Print JSON only."""
