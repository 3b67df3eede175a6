"""What a row is, and what is claimed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gmml_models.recipes.config import FinetuneConfig, PretrainConfig


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of a row against another one.

    Attributes:
        words: the claim, in ours.
        paper: its numbers, with data set and model.
        source: table, figure or section.
        against: name of the other row.
        expected: what the claim says of the row's accuracy, against that of the other; None: nobody claimed anything.
    """

    words: str
    paper: str
    source: str
    against: str
    expected: Literal["above", "below", "equal"] | None


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of training, and what is claimed of it.

    Attributes:
        name: group and what is special, ``kinds/noise``.
        what: a word to the reader.
        finetune: settings; ``out``, ``seed``, ``weights`` and the images are filled in when it is run.
        pretrain: settings of the pretraining in front of it; None: from scratch.
        seeds: one run each.
        stage: rows are run in its order, so that a part of all runs is already worth something.
        repeats: the stage of all seeds but the first.
        claims: about its accuracy after fine-tuning.
    """

    name: str
    what: str
    finetune: FinetuneConfig
    pretrain: PretrainConfig | None = None
    seeds: tuple[int, ...] = (0,)
    stage: int
    repeats: int = 0
    claims: tuple[Claim, ...] = ()

    @property
    def group(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


def jobs(rows: Sequence[Row]) -> list[tuple[Row, int]]:
    """Each row with each of its seeds, in the order of importance."""
    every = [(row, seed) for row in rows for seed in row.seeds]
    return sorted(every, key=lambda job: job[0].stage if job[1] == job[0].seeds[0] else max(job[0].repeats, job[0].stage))


def beats(scratch: Row) -> Claim:
    """The main claim of GMML, against a row from scratch."""
    return Claim(
        words="Pretraining by GMML on the target set alone beats training from scratch",
        paper="Flowers, ViT-T, 800 epochs: 81.2 against 58.1",
        source="GMML table 2",
        against=scratch.name,
        expected="above",
    )


def views_in_words(mixed: bool) -> str:
    """What is done to the images of a fine-tuning."""
    return "crops, flips, MixUp and CutMix" if mixed else "crops and flips"
