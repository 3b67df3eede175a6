"""The results on a card: every number next to baselines that need no training, or in a list if no more is known about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gmml_models.hub.markdown import is_number, line, mapping, mappings, table

_NONE = ""


def results(metrics: object) -> str:
    """Format all numbers as Markdown.

    Args:
        metrics: see `gmml_models.hub.model_card.model_card`. Numbers with a data set are shown in one table per data set, with
            one column per metric and one row per baseline; the others are listed.
    """
    told = mappings(metrics)
    compared = [one for one in told if mapping(one.get("dataset"))]
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in compared:
        groups.setdefault((_name(one), str(one.get("split"))), []).append(one)
    parts = [_group(some) for some in groups.values()]
    listed = [one for one in told if one not in compared]
    if listed:
        parts.append(table(("Measure", "Value", "Measured by", "Command"), map(_row, listed)))
    return "\n\n".join(parts) if parts else "None recorded."


def _row(metric: Mapping[str, Any]) -> tuple[object, ...]:
    said = _value(metric.get("value", "not recorded"), metric.get("spread"))
    return metric.get("name"), said, metric.get("measured_by") or "not recorded", metric.get("command")


def _group(some: Sequence[Mapping[str, Any]]) -> str:
    """One data set and split, with everything that was measured on it side by side."""
    first = some[0]
    rows: dict[str, list[object]] = {}

    def cell(row: str, column: int, said: object) -> None:
        rows.setdefault(row, [_NONE] * len(some))[column] = said

    for column, one in enumerate(some):
        cell(f"**these weights**{_seeds(one.get('seeds'))}", column, f"**{_value(one.get('value', 'not recorded'), None)}**")
    for column, one in enumerate(some):
        if "mean" in one:
            many = one.get("mean_seeds")
            cell(
                f"mean of {len(many) if isinstance(many, list) else '?'} pretrainings{_seeds(many)}",
                column,
                _value(one["mean"], one.get("spread")),
            )
    for column, one in enumerate(some):
        for each in mappings(one.get("baselines")):
            cell(str(each.get("name")), column, _value(each.get("value", "not recorded"), each.get("spread")))
    head = ("", *(line(one.get("name")) for one in some))
    images = f"{first['images']:,} images" if is_number(first.get("images")) else "images"
    by = line(first.get("measured_by") or "who measured is not recorded")
    seen = f"; features are the {line(first['features'])}" if first.get("features") else ""
    about = f"On {line(_name(first))}, split {line(first.get('split'))}, {images}{seen}; {by}."
    commands = list(dict.fromkeys(str(one["command"]) for one in some if one.get("command")))
    again = f"Measure it again: {'; '.join(map(line, commands))}." if commands else ""
    return "\n\n".join(filter(None, [about, table(head, [(name, *cells) for name, cells in rows.items()], keep=True), again]))


def _name(one: Mapping[str, Any]) -> str:
    measured = mapping(one.get("dataset"))
    return str(measured.get("name") or measured.get("id") or "a set without a name")


def _value(value: object, spread: object) -> str:
    said = value if isinstance(value, str) else str(value)
    return said if spread is None else f"{said} ± {spread}"


def _seeds(seeds: object) -> str:
    if not isinstance(seeds, list) or not seeds:
        return ""
    return f", seed{'s' * (len(seeds) > 1)} {' '.join(map(str, seeds))}"
