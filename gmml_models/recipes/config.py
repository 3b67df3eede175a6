"""What a recipe is told, in frozen dataclasses: code, command line and the run's own record read the same fields.

Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

from gmml_models.data.config import FREE, DataConfig
from gmml_models.train.config import TrainConfig

Method = Literal["gmml", "sit", "mc_ssl", "autoencoder"]


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainConfig):
    """Pretrain a vision transformer without labels, by GMML or one of its relatives.

    Defaults are GMML 3.1 where it speaks and the authors' release where it is silent.
    """

    kind: ClassVar[str] = "pretrain"

    out: Path = Path("runs/pretrain")
    """Folder of the run: config, checkpoints, losses, pictures, weights. The same command again goes on where it stopped."""
    weights: str | None = None
    """Weights to begin with, in place of `model`: a folder, a Hub name, a name of the zoo, or a vision transformer of timm's."""
    method: Method = "gmml"
    """Objective; autoencoder is the control without corruption."""
    corruption: str | None = None
    """A preset of gmml_aug, or the code of a composition (what print(corrupt) shows); that of the method by default."""
    decoder: Literal["paper", "release", "mc_ssl"] | None = None
    """That of the method by default."""
    blocks: tuple[int, ...] | None = None
    """Blocks that the decoder sees the average of, counting from 1, ascending (GMML figure 7); those of the method by default."""
    target: Literal["pixels", "normalised"] = "pixels"
    """What the decoder learns to say: the pixels, or each patch normalised by its own mean and standard deviation (MAE's)."""
    loss: Literal["l1", "l2"] = "l1"
    """How the reconstruction is compared: absolute difference (GMML equation 1) or squared difference."""
    terms: Literal["both", "reconstruction", "concepts"] = "both"
    """mc_ssl: which losses (MC-SSL table 3)."""
    classes: int = 8192
    """mc_ssl: number of concepts; 1024 for small data sets."""
    head_width: int | None = None
    """mc_ssl, sit: of the hidden layers of the head; 2048 and 4096 by default, less for small models."""
    cls_loss: bool = False
    """mc_ssl: concepts of the class token too (the release's)."""
    reconstruction_weight: float = 1.0
    """sit: weight of the reconstruction; 5 on small data."""
    momentum: float = 0.996
    """sit, mc_ssl: of the teacher at the start; 1 at the end of its cosine."""
    views: int | None = None
    """Large crops of each image; by default 2 for gmml, sit and --cls-loss, else 1."""
    local_views: int = 0
    """mc_ssl: small crops of each image, seen by the student only."""
    local_size: int | None = None
    """Side of the small crops; by default three sevenths of the input, a whole number of patches."""
    scale: tuple[float, float] = (0.05, 1.0)
    """Share of the image's area that a large crop takes (the release's)."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Share that a small crop takes."""
    flip: float = 0.5
    """Chance of a mirrored crop."""
    jitter: tuple[float, float, float, float] = (0.1, 0.1, 0.1, 0.01)
    """Brightness, contrast, saturation, hue (the release's)."""
    jitter_p: float = 0.3
    """Chance of it."""
    blur_p: float = 0.1
    """Chance of a Gaussian blur of the whole view (the release's)."""
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    """Of the crops."""
    pictures_every: int = field(default=10, metadata=FREE)
    """Epochs between sheets of reconstructions; 0: none."""
    health_every: int = field(default=10, metadata=FREE)
    """Epochs between looks at the features of 256 images, against the untrained encoder's; 0: none."""


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig(TrainConfig):
    """Train a classifier on labelled images, from pretrained weights or from scratch.

    Multi-class as DeiT through timm (GMML 3.1, MC-SSL 4.3); multi-label as MC-SSL 4.2 with --multi-label.
    """

    kind: ClassVar[str] = "finetune"

    out: Path = Path("runs/finetune")
    """Folder of the run: config, checkpoints, losses, weights. The same command again goes on where it stopped."""
    weights: str | None = None
    """A folder that pretraining wrote, a Hub name, or a name of the zoo; none: from scratch, with `model`."""
    test_data: str | None = None
    """Labelled images to measure on; by default the test or val split beside the training split."""
    test_split: str | None = None
    """Its split."""
    holdout: float | None = None
    """Measure on this share of the training images of each class, which then does not train; for 0.2 every fifth."""
    labels: str | None = None
    """A CSV, first column the file, then one 0/1 column a label, or the class; by default labels.csv in the folder."""
    labels_columns: tuple[str, ...] | None = None
    """Its columns that are labels, by default all of two values such as 0 and 1; or the one with the class."""
    class_level: int | None = None
    """Which folder is the class: 1 the outermost, 2 those in it, -1 the innermost; by default the first level with several."""
    multi_label: bool | None = None
    """Several labels an image; by default where a labels.csv is."""
    few_shot: float = 1.0
    """Share of the training images of each class that is used, at least one of each."""
    pool: Literal["token", "mean", "both"] | None = None
    """What the head sees: class token, mean of the patch tokens, or both; by default as the weights' method has it, or token."""
    epochs: int = 200
    """Times that every image is seen (GMML 3.1)."""
    batch_size: int = 256
    """Images a step, over all processes and accumulated parts."""
    lr: float = 5e-4
    """Learning rate at 512 images a step, as DeiT; it grows with batch_size / 512."""
    warmup_epochs: float = 5.0
    """Epochs over which the learning rate rises from zero."""
    weight_decay: float = 0.05
    """DeiT's."""
    weight_decay_end: float = 0.05
    """DeiT's is constant."""
    clip: float | None = None
    """Largest norm of each parameter's gradient; DeiT does not clip."""
    layer_decay: float = 1.0
    """Factor on the learning rate per layer away from the head; an option of ours, 1: none."""
    smoothing: float | None = None
    """Label smoothing; 0.1 by default, none with several labels."""
    mixup: float | None = None
    """Beta of MixUp, 0: none; 0.8 by default, none with several labels."""
    cutmix: float | None = None
    """Beta of CutMix, 0: none; 1 by default, none with several labels."""
    auto_augment: str | None = "rand-m9-mstd0.5-inc1"
    """Policy in timm's words; none: crops and flips alone."""
    erasing: float | None = None
    """Chance of timm's RandomErasing; 0.25 by default, none with several labels."""
    scale: tuple[float, float] | None = None
    """Share of the image's area that a crop takes; 0.08 to 1 by default, with several labels the whole image, resized."""
    flip: float = 0.5
    """Chance of a mirrored crop."""
    ema: float = 0.0
    """Decay of an average of the weights, which is then what is measured; 0: none."""
    test_every: int = field(default=1, metadata=FREE)
    """Epochs between measurements; 0: none, and no test images are needed."""
    keep_best: bool = field(default=True, metadata=FREE)
    """Keep the weights of the epoch that measured best, in weights-best beside the weights of the last one."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(DataConfig):
    """Measure weights: k-NN, linear probe, and the accuracy of a fine-tuned classifier, over several seeds."""

    weights: str = ""
    """A folder, a Hub name, or a name of the zoo."""
    test_data: str | None = None
    """Labelled images to measure on; by default the test or val split beside the training split."""
    test_split: str | None = None
    """Its split."""
    holdout: float | None = None
    """Measure on this share of the training images of each class, which then does not train; for 0.2 every fifth."""
    labels: str | None = None
    """A CSV, first column the file, then one 0/1 column a label, or the class; by default labels.csv in the folder."""
    labels_columns: tuple[str, ...] | None = None
    """Its columns that are labels, by default all of two values such as 0 and 1; or the one with the class."""
    class_level: int | None = None
    """Which folder is the class: 1 the outermost, 2 those in it, -1 the innermost; by default the first level with several."""
    multi_label: bool | None = None
    """Several labels an image; by default where a labels.csv is."""
    measures: tuple[Literal["knn", "linear", "classifier"], ...] = ("knn", "linear")
    """What is measured; classifier takes weights that gmml finetune wrote."""
    baselines: bool = False
    """Measure in the same way what needs no training: an untrained encoder of the same shape, 8 x 8 thumbnails, PCA of the pixels,
    colour histogram, HOG."""
    few_shot: float = 1.0
    """Share of the training images of each class that is used."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Each with its own choice of few-shot images and start of the probe."""
    k: int = 20
    """Neighbours."""
    pool: Literal["token", "mean", "both"] | None = None
    """Features: class token, mean of the patch tokens, or both; by default as the weights say, as in fine-tuning."""
    img_size: int | None = None
    """Side of the input; that of the weights by default."""
    batch_size: int = 256
    """Images at once."""
    cpu: bool = False
    """Stay on the CPU even where a GPU is at hand."""
    out: Path = Path("runs/evaluate")
    """Folder of the table, as Markdown and JSON."""

    def __post_init__(self) -> None:
        """A folder may be given as text."""
        super().__post_init__()
        object.__setattr__(self, "out", Path(self.out).expanduser())


@dataclass(frozen=True, kw_only=True)
class PredictConfig:
    """Tell the classes or the labels of new images by a classifier that gmml finetune trained."""

    images: tuple[Path, ...] = ()
    """Image files, and folders of them at any depth; or one archive."""
    weights: str = ""
    """What gmml finetune wrote: a folder, or a Hub name."""
    out: Path | None = None
    """Where the table is written, a .csv or .json file; by default it is printed as CSV."""
    top: int = 1
    """One class an image: how many of the most probable classes are told."""
    threshold: tuple[float, ...] = (0.5,)
    """Several labels an image: a label holds from this probability on; one for all, or one a label, in their order."""
    img_size: int | None = None
    """Side of the input; that of the weights by default."""
    batch_size: int = 64
    """Images at once."""
    workers: int = 2
    """Processes that decode."""
    cpu: bool = False
    """Stay on the CPU even where a GPU is at hand."""

    def __post_init__(self) -> None:
        """Paths may be given as text; a ``~`` that no shell has read is the home folder."""
        object.__setattr__(self, "images", tuple(Path(one).expanduser() for one in self.images))
        if self.out is not None:
            object.__setattr__(self, "out", Path(self.out).expanduser())
        if self.weights.startswith("~"):
            object.__setattr__(self, "weights", str(Path(self.weights).expanduser()))


@dataclass(frozen=True, kw_only=True)
class StatsConfig(DataConfig):
    """Mean and standard deviation of a data set, per channel, for pixels in [0, 1]."""

    json: bool = False
    """Print JSON alone."""
