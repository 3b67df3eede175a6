"""What is measured: rows of settings, each with what the papers claim about it. All numbers of a run stand here.

A row is a fine-tuning, behind a pretraining or from scratch, once a seed. Every row fine-tunes in the same way, `TUNED`, which was
chosen for training from scratch: see the rows ``tune/...``. Pretraining was not tuned.

Rows of the CPU are in bfloat16; those that were measured on a processor without it are in float32, against references in float32.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from benchmarks.claims.gpu_rows import gpu_rows
from benchmarks.claims.row import Claim, Row, beats, views_in_words
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig

MAIN_EPOCHS, ABLATION_EPOCHS = (60, 40), (24, 20)
"""Of pretraining and fine-tuning. The paper has 800 and 200, for the ablations 400 and 400."""
TUNING_EPOCHS = 20
BATCH = 16
"""Images a step: few, so that some 1,500 images in few epochs make steps enough."""
PRETRAIN_RATE = 5e-4
"""Learning rate of a step of pretraining: GMML 3.1's, which is for 256 images; it was not tuned, nor scaled to `BATCH`."""
GRID = ((5e-4, False), (1e-3, False), (2e-3, False), (1e-3, True))
"""Learning rates of a step, and with MixUp and CutMix or without, that ``tune/...`` tries from scratch. DeiT's rate is 5e-4."""
TUNED: Mapping[str, Any] = {"lr": 1e-3, "mixed": False}
"""Of the grid ``tune/...`` the one that did best from scratch on the images held out; the grid's numbers are in the JSON."""
SEEDS = (0, 1, 2)

CALTECH, HELD, FLOWERS, MNIST = ("caltech101_sub", "caltech101_sub/held", "flowers102_part/15", "mnist/2000")
IMAGES = {CALTECH: 1515, HELD: 1212, FLOWERS: 1335, f"{FLOWERS}/held": 1068, MNIST: 2000}
"""To train on: for the estimate of the time, and the words of the short table."""
SPEED = {"gmml": 125.0, "mc_ssl": 75.0, "finetune": 175.0}
"""Images a second of each training on one core in bfloat16, measured once: for the estimate alone."""

_CPU: dict[str, Any] = {"batch_size": BATCH, "cpu": True, "resident": True, "workers": 0, "precision": "bf16", "keep": 1}
_MODEL = "vit_micro_patch8_64"
_SCRATCH32 = "control/scratch-float32"


def _tuned(epochs: int, data: str = CALTECH, *, lr: float | None = None, mixed: bool | None = None) -> FinetuneConfig:
    """Fine-tuning on the CPU: crops and flips of resident images; MixUp and CutMix as DeiT where ``mixed``."""
    rate, mixes = TUNED["lr"] if lr is None else lr, TUNED["mixed"] if mixed is None else mixed
    return FinetuneConfig(
        data=data,
        model=_MODEL,
        epochs=epochs,
        lr=rate * 512 / BATCH,
        pool="mean",
        mixup=0.8 if mixes else 0.0,
        cutmix=1.0 if mixes else 0.0,
        auto_augment=None,
        erasing=0.0,
        scale=(0.35, 1.0),
        warmup_epochs=2.0,
        drop_path=0.0,
        test_every=1_000_000,  # at the end alone: what is measured on the way decides nothing
        **_CPU,
    )


def _pretrained(epochs: int, data: str = CALTECH, **settings: Any) -> PretrainConfig:
    return PretrainConfig(
        data=data,
        model=_MODEL,
        epochs=epochs,
        lr=PRETRAIN_RATE * 256 / BATCH,
        warmup_epochs=2.0,
        views=1,
        pictures_every=0,
        **_CPU,
        **settings,
    )


def _ablation(name: str, what: str, stage: int, claims: Sequence[Claim] = (), data: str = CALTECH, **settings: Any) -> Row:
    before, after = ABLATION_EPOCHS
    return Row(
        name=name,
        what=what,
        stage=stage,
        claims=tuple(claims),
        pretrain=_pretrained(before, data, **settings),
        finetune=_tuned(after),
    )


def _float32(row: Row) -> Row:
    """The same in float32."""
    pretrain = None if row.pretrain is None else replace(row.pretrain, precision="fp32")
    return replace(row, what=f"{row.what}; float32", pretrain=pretrain, finetune=replace(row.finetune, precision="fp32"))


def _tuning() -> list[Row]:
    return [
        Row(
            name=f"tune/{rate:g}-{'mixed' if mixed else 'plain'}",
            what=f"from scratch, learning rate {rate:g}, {views_in_words(mixed)}; on a fifth of the training images, held out",
            stage=1,
            finetune=_tuned(TUNING_EPOCHS, HELD, lr=rate, mixed=mixed),
        )
        for rate, mixed in GRID
    ]


def _main(short: str, data: str, stage: int, repeats: int) -> list[Row]:
    before, after = MAIN_EPOCHS
    scratch = Row(
        name=f"main/{short}-scratch",
        what="from scratch",
        seeds=SEEDS,
        stage=stage,
        repeats=repeats,
        finetune=_tuned(after, data),
    )
    gmml = replace(scratch, name=f"main/{short}-gmml", what="GMML", pretrain=_pretrained(before, data), claims=(beats(scratch),))
    return [scratch, gmml]


def _same(bfloat16: Row) -> Claim:
    return Claim(
        words="float32 instead of bfloat16", paper="not compared", source="our question", against=bfloat16.name, expected=None
    )


def _controls() -> list[Row]:
    after = ABLATION_EPOCHS[1]
    long, short = sum(MAIN_EPOCHS), sum(ABLATION_EPOCHS)
    best = Claim(
        words="It beats training from scratch for as many epochs as pretraining and fine-tuning have together",
        paper="5 % of ImageNet, ViT-S: 30.4 from scratch in 800 epochs; every ablation of 400 + 400 lies above it in the figures",
        source="GMML 3.3",
        against="main/caltech-gmml",
        expected="below",
    )
    scratch = Row(name="control/scratch", what=f"from scratch, {after} epochs", stage=3, finetune=_tuned(after))
    return [
        Row(name="main/caltech-scratch-long", what=f"from scratch, {long} epochs", stage=2, finetune=_tuned(long), claims=(best,)),
        scratch,
        _float32(replace(scratch, name=_SCRATCH32, stage=7, claims=(_same(scratch),))),
        Row(name="control/scratch-long", what=f"from scratch, {short} epochs", stage=3, finetune=_tuned(short)),
    ]


def _kinds() -> list[Row]:
    def claim(words: str, against: str, expected: Literal["above", "below"]) -> Claim:
        paper = "a bar chart for 5 % of ImageNet, ViT-S; the text has no numbers"
        return Claim(words=words, paper=paper, source="GMML 3.3.1, figure 5", against=f"kinds/{against}", expected=expected)

    single = "Alien content is the best single corruption: better than"
    unspoilt = Claim(
        words="An autoencoder without corruption fine-tunes like training from scratch",
        paper="'similar'; from scratch 30.4",
        source="GMML 3.3.1",
        against="control/scratch",
        expected="equal",
    )
    claims: dict[str, tuple[Claim, ...]] = {
        "none": (unspoilt,),
        "replace": (claim(f"{single} noise", "noise", "above"), claim(f"{single} zeros", "zeros", "above")),
        "comb1": (claim("Noise and alien content together (comb1) beat alien content alone", "replace", "above"),),
        "comb2": (claim("Zeros, noise and alien content together (comb2) do worse than comb1", "comb1", "below"),),
    }
    kinds = ("none", "zeros", "noise", "replace", "comb1", "comb2")
    return [
        _ablation(
            f"kinds/{kind}",
            "nothing is corrupted" if kind == "none" else f"up to 70 % of {kind}",
            3,
            claims.get(kind, ()),
            **({"method": "autoencoder"} if kind == "none" else {"corruption": _kind(kind, 0.7)}),
        )
        for kind in kinds
    ]


def _kind(kind: str, ratio: float) -> str:
    return f'presets.ablation(kind="{kind}", ratio={ratio})'


def _masks() -> list[Row]:
    """The relatives' masks in patches of 8 pixels: 64 of them, where the originals have 196 of 16 pixels."""
    words, source = "Groups of noise and alien content beat masking with zeros as", "GMML 5, from 3.3"
    paper = "figure 5 for zeros; no comparison with these methods on equal terms"
    rules = {
        "mae": ("MAE", "presets.mae(patch=8)", "75 % of the patches"),
        "simmim": ("SimMIM", "presets.simmim(cell=16)", "60 % of cells of 2 x 2 patches"),
        "beit": ("BEiT", "presets.beit(patch=8, least=5)", "blocks of at least 5 patches (16 of 196, scaled to 64), 40 %"),
    }
    release = Claim(
        words="The paper's boxes with exact shares, against the boxes of the authors' release",
        paper="not compared",
        source="our question",
        against="masks/gmml_reference",
        expected=None,
    )
    return [
        _ablation("masks/gmml", "the paper's recipe", 4, [release]),
        _ablation("masks/gmml_reference", "the behaviour of the release", 4, corruption="gmml_reference"),
        *(
            _ablation(
                f"masks/{name}",
                f"zeros, {what}",
                4,
                [Claim(words=f"{words} {title} does", paper=paper, source=source, against="masks/gmml", expected="below")],
                corruption=rule,
            )
            for name, (title, rule, what) in rules.items()
        ),
    ]


def _extent() -> list[Row]:
    def claims(ratio: float) -> list[Claim]:
        words = f"Up to 40 to 70 % is best: {100 * ratio:.0f} % does worse than 50 %"
        if ratio == 0.7:
            words = "Up to 40 to 70 % is best: 70 % does as well as 50 %"
        paper, source = "40 to 70 %, a curve for 5 % of ImageNet, ViT-S", "GMML 3.3.2, figure 6"
        expected: Literal["equal", "below"] = "equal" if ratio == 0.7 else "below"
        return [Claim(words=words, paper=paper, source=source, against="extent/0.5", expected=expected)] if ratio != 0.5 else []

    ratios = (0.1, 0.3, 0.5, 0.7, 0.9)
    return [
        _ablation(f"extent/{ratio}", f"up to {100 * ratio:.0f} % of comb1", 6, claims(ratio), corruption=_kind("comb1", ratio))
        for ratio in ratios
    ]


def _fusion() -> list[Row]:
    """Figure 7 at half the depth: 2-4-...-12 of 12 are 1-2-...-6 of 6."""
    paper = "the best of six settings in a bar chart, 5 % of ImageNet, ViT-S"
    settings = {"all": (1, 2, 3, 4, 5, 6), "last-two": (5, 6), "last": (6,)}
    upper = _ablation("fusion/upper-half", "the decoder reads blocks 3-4-5-6, the default: the paper's 6, 8, 10, 12", 7)
    exact = _float32(replace(upper, name="fusion/upper-half-float32", claims=(_same(upper),)))
    rows = [upper, exact]
    for name, blocks in settings.items():
        told, reference = "-".join(map(str, blocks)), exact if name == "last" else upper
        claim = Claim(
            words=f"Fusing the upper half of the blocks is best: {told} does worse",
            paper=paper,
            source="GMML 3.3.3, figure 7",
            against=reference.name,
            expected="below",
        )
        row = _ablation(f"fusion/{name}", f"the decoder reads blocks {told}", 7, [claim], blocks=blocks)
        rows.append(_float32(row) if reference is exact else row)
    return rows


def _concepts() -> list[Row]:
    def claim(words: str, paper: str, against: str) -> Claim:
        return Claim(words=words, paper=paper, source="MC-SSL table 3", against=against, expected="above")

    setting = "Flowers, ViT-S from 10 % of ImageNet"
    claims = {
        "reconstruction": claim("Reconstruction alone beats training from scratch", f"{setting}: 88.2 against 54.0", _SCRATCH32),
        "concepts": claim("Concepts alone beat reconstruction alone", f"{setting}: 94.9 against 88.2", "mc_ssl/reconstruction"),
        "both": claim("Both together beat concepts alone", f"{setting}: 95.6 against 94.9", "mc_ssl/concepts"),
    }
    options: dict[str, Any] = {"method": "mc_ssl", "classes": 1024, "head_width": 512}
    rows = [_ablation(f"mc_ssl/{terms}", f"MC-SSL, {terms}", 8, [one], terms=terms, **options) for terms, one in claims.items()]
    return [_float32(row) for row in rows]


def _transfer() -> list[Row]:
    claim = Claim(
        words="Even pretraining on MNIST beats training from scratch on photographs",
        paper="Flowers, ViT-T: 74.8 against 58.1",
        source="GMML table 3",
        against=_SCRATCH32,
        expected="above",
    )
    return [_float32(_ablation("transfer/mnist", "GMML on 2,000 digits", 9, [claim], MNIST))]


ROWS: tuple[Row, ...] = (
    *_tuning(),
    *_main("caltech", CALTECH, 2, 5),
    *_controls(),
    *_kinds(),
    *_masks(),
    *_extent(),
    *_fusion(),
    *_concepts(),
    *_transfer(),
    *map(_float32, _main("flowers", FLOWERS, 10, 11)),
    *gpu_rows(FLOWERS, SEEDS),
)
