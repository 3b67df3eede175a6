"""Ranks the weights in the registry, in one table per data set, together with baselines that need no training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from gmml_models.hub.markdown import is_number, mapping, mappings, table
from gmml_models.models.registry import Entry

_FIRST = "linear probe"  # what decides the rank, where it is measured


class Ranked(NamedTuple):
    """A row.

    Attributes:
        name: the name of the weights, or of a baseline.
        encoder: a description of the encoder, if there is one, such as "vit_micro_patch8_64, 1.2 M, 0.085 GMACs".
        values: the results in percent, by measure.
        spread: the standard deviation over several runs, by metric.
        licence: the licence of the weights.
        weights: True for weights, False for a baseline.
    """

    name: str
    encoder: str
    values: dict[str, float]
    spread: dict[str, float]
    licence: str
    weights: bool


class Ranking(NamedTuple):
    """The table for one data set.

    Attributes:
        dataset: the name of the data set.
        split: the split that the results are measured on.
        images: the number of images.
        measures: the columns.
        rows: the rows, with the best first.
    """

    dataset: str
    split: str
    images: int | None
    measures: tuple[str, ...]
    rows: tuple[Ranked, ...]


def rankings(entries: Iterable[Entry]) -> list[Ranking]:
    """Make one table per data set, with baselines as rows, ranked by linear probe, or else by the first metric.

    Args:
        entries: the entries of `gmml_models.models.registry.registry`; results without a data set are not shown.
    """
    found: dict[tuple[str, str], list[tuple[Entry, Mapping[str, Any]]]] = {}
    for entry in entries:
        for metric in mappings(mapping(entry.about.get("gmml")).get("metrics")):
            dataset = mapping(metric.get("dataset")).get("name")
            if isinstance(dataset, str) and is_number(metric.get("value")):
                found.setdefault((dataset, str(metric.get("split"))), []).append((entry, metric))
    return [_ranking(*key, some) for key, some in sorted(found.items())]


def _ranking(dataset: str, split: str, some: Sequence[tuple[Entry, Mapping[str, Any]]]) -> Ranking:
    measures = tuple(dict.fromkeys(str(metric.get("name")) for _, metric in some))
    rows: dict[str, Ranked] = {}
    for entry, metric in some:
        if entry.name not in rows:
            rows[entry.name] = Ranked(entry.name, encoder_words(entry.about), {}, {}, _licence(entry.about), True)
        _put(rows[entry.name], str(metric.get("name")), metric["value"], None)
    for entry, metric in some:
        for one in mappings(metric.get("baselines")):
            if is_number(one.get("value")):
                _baseline(rows, entry, str(metric.get("name")), one)
    by = next((name for name in measures if name.startswith(_FIRST)), measures[0])
    ordered = sorted(rows.values(), key=lambda row: [*(-row.values.get(one, -1.0) for one in (by, *measures)), row.name])
    images = next((metric["images"] for _, metric in some if type(metric.get("images")) is int), None)
    return Ranking(dataset, split, images, measures, tuple(ordered))


def _baseline(rows: dict[str, Ranked], entry: Entry, measure: str, one: Mapping[str, Any]) -> None:
    """Add the number of a baseline; a baseline that differs between encoders gets one row for each."""
    name = str(one.get("name"))
    known = rows.get(name)
    if known is not None and known.values.get(measure, one["value"]) != one["value"]:
        name = f"{name}, {_shape(entry.about).get('name') or entry.name}"
    _put(rows.setdefault(name, Ranked(name, "", {}, {}, "", False)), measure, one["value"], one.get("spread"))


def _put(row: Ranked, measure: str, value: float, spread: object) -> None:
    row.values[measure] = value
    if is_number(spread):
        row.spread[measure] = spread


def encoder_words(about: Mapping[str, Any]) -> str:
    """Describe the encoder of a folder and its cost in a few words.

    Args:
        about: the config.json of the folder.
    """
    ours, shape = mapping(about.get("gmml")), _shape(about)
    count, cost = mapping(ours.get("parameters")).get("encoder"), mapping(ours.get("cost"))
    sizes = f"{shape['depth']} blocks, {shape['width']} wide" if {"depth", "width"} <= shape.keys() else ""
    parts = [
        str(shape.get("name") or sizes),
        f"{count / 1e6:.1f} M" if is_number(count) else "",
        f"{cost['gmacs']:.2g} GMACs" if is_number(cost.get("gmacs")) else "",
    ]
    return ", ".join(filter(None, parts))


def as_markdown(rankings: Sequence[Ranking]) -> str:
    """Format all tables as Markdown, with the weights in bold."""
    parts = []
    for one in rankings:
        head = ("", "features", "encoder", *one.measures, "licence")
        rows = [(place, f"**{row.name}**" if row.weights else row.name, *_cells(one, row)) for place, row in enumerate(one.rows, 1)]
        parts.append(f"{_title(one)}:\n\n{table(head, rows)}")
    return "\n\n".join(parts)


def as_text(rankings: Sequence[Ranking]) -> str:
    """Format all tables for a terminal; weights are marked with a star."""
    parts = []
    for one in rankings:
        head = ["", "", *one.measures]
        lines = [[f"{place}", f"{row.name}{' *' * row.weights}", *_cells(one, row)[1:-1]] for place, row in enumerate(one.rows, 1)]
        wide = [max(len(line[column]) for line in [head, *lines]) for column in range(len(head))]
        told = ["  ".join(f"{cell:<{width}}" for cell, width in zip(line, wide, strict=True)).rstrip() for line in [head, *lines]]
        parts.append("\n".join([_title(one), *(f"  {line}" for line in told)]))
    return "\n\n".join(parts)


def _cells(ranking: Ranking, row: Ranked) -> list[str]:
    return [row.encoder, *(_number(row, measure) for measure in ranking.measures), row.licence]


def _number(row: Ranked, measure: str) -> str:
    if measure not in row.values:
        return ""
    spread = f" ± {row.spread[measure]:.1f}" if measure in row.spread else ""
    return f"{row.values[measure]:.1f}{spread}"


def _title(one: Ranking) -> str:
    images = f", {one.images:,} images" if one.images is not None else ""
    return f"{one.dataset}; split {one.split}{images}"


def _shape(about: Mapping[str, Any]) -> Mapping[str, Any]:
    return mapping(mapping(about.get("gmml")).get("encoder"))


def _licence(about: Mapping[str, Any]) -> str:
    return str(mapping(about.get("pretrained_cfg")).get("license", "unknown"))
