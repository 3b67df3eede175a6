"""Rows and claims as data, read from ``rows.toml`` and ``claims.toml``: what is run, and what is asked of it."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gmml_models.recipes.config import FinetuneConfig, PretrainConfig

SEEDS = (0, 1, 2)
MEASURES: Mapping[str, str] = {"top1": "fine-tuning", "linear": "linear probe", "knn": "k-NN"}
"""By the names that results have; each is top-1 of the test images in percent."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One way of training.

    Attributes:
        name: group and what is special, ``kinds/noise``.
        what: a word to the reader.
        finetune: settings; ``out``, ``seed``, ``weights`` and the images are filled in when it is run.
        pretrain: settings of the pretraining in front of it; None: from scratch.
        seeds: one run each; at least three where something is asked of it.
        measures: names of `MEASURES` that are asked for; without ``top1`` nothing is fine-tuned, and ``finetune`` says on which
            images, and with which read-out, the features are measured.
    """

    name: str
    what: str
    finetune: FinetuneConfig
    pretrain: PretrainConfig | None = None
    seeds: tuple[int, ...] = SEEDS
    measures: tuple[str, ...] = tuple(MEASURES)

    @property
    def group(self) -> str:
        """The first part of the name."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says of a row beside another one, or what we ask.

    Attributes:
        question: that it is an answer to.
        ours: name of the row that it is about.
        relation: what is claimed: more than the other (>), as much (=), or nothing (?).
        theirs: name of the other row.
        words: the claim, in ours.
        source: table, figure or section.
        paper: its numbers, with data set and model.
        measures: by which it is judged; names of `MEASURES`.
    """

    question: str = ""
    ours: str
    relation: Literal[">", "=", "?"]
    theirs: str
    words: str
    source: str
    paper: str
    measures: tuple[str, ...] = tuple(MEASURES)


def jobs(rows: Sequence[Row], seeds: Iterable[int] | None = None) -> list[tuple[Row, int]]:
    """Each row with each seed: group by group, as the questions stand, and in a group the first seed of all rows first.

    Args:
        rows: in order.
        seeds: instead of their own.
    """
    groups = list(dict.fromkeys(row.group for row in rows))
    every = [(row, seed) for row in rows for seed in (row.seeds if seeds is None else seeds)]
    return sorted(every, key=lambda job: (groups.index(job[0].group), job[1]))


def _load(name: str) -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _rows(told: Mapping[str, Any]) -> tuple[Row, ...]:
    def settings(row: Mapping[str, Any], part: str) -> dict[str, Any]:
        """Of its base first, which may have one itself."""
        below = settings(told["base"][row["base"]], part) if "base" in row else {}
        found = {**below, **row.get("both", {}), **row.get(part, {})}
        return {name: tuple(one) if isinstance(one, list) else None if one == "none" else one for name, one in found.items()}

    return tuple(
        Row(
            name=name,
            what=row["what"],
            finetune=FinetuneConfig(**settings(row, "finetune")),
            pretrain=None if row.get("scratch") else PretrainConfig(**settings(row, "pretrain")),
            seeds=tuple(row.get("seeds", SEEDS)),
            measures=tuple(row.get("measures", MEASURES)),
        )
        for name, row in told["rows"].items()
    )


def _claims(told: Mapping[str, Any]) -> tuple[Claim, ...]:
    found = []
    for question in told["question"]:
        common = {name: one for name, one in question.items() if name not in ("asks", "claims")}
        for claim in question["claims"]:
            one = {"measures": list(MEASURES), **common, **claim}
            one |= {"measures": tuple(one["measures"]), **told["papers"][one.pop("said")]}
            found.append(Claim(question=question["asks"], **one))
    return tuple(found)


ROWS = _rows(_load("rows.toml"))
BY_NAME = {row.name: row for row in ROWS}
CLAIMS = _claims(_load("claims.toml"))
