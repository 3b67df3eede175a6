"""Corruptions from words: read, never run."""

from __future__ import annotations

import pytest

import gmml_aug as ga
from gmml_models.errors import UsageError
from gmml_models.recipes.parse_corruption import corruption_from

VALUES = ((0.5,), (0.25,))


@pytest.mark.parametrize("name", ga.presets.names())
def test_a_preset_by_name_knows_the_value_range(name: str) -> None:
    assert corruption_from(name, VALUES) == getattr(ga.presets, name)(values=VALUES)


@pytest.mark.parametrize("name", ga.presets.names())
def test_what_print_shows_comes_back(name: str) -> None:
    corrupt = getattr(ga.presets, name)(values=VALUES)
    assert corruption_from(repr(corrupt), ((0.0,), (1.0,))) == corrupt  # its own range stays


def test_code_with_options_and_nesting() -> None:
    words = "OneOf([InBoxes(Boxes(ratio=(0.1, 0.3), align=4), Noise()), Constant(value=(-1.0, 1.0))], weights=[3, 1])"
    wanted = ga.Chain(
        [ga.OneOf([ga.InBoxes(ga.Boxes(ratio=(0.1, 0.3), align=4), ga.Noise()), ga.Constant(value=(-1.0, 1.0))], weights=[3, 1])],
        values=VALUES,
    )
    assert corruption_from(words, VALUES) == wanted
    for words in ("presets.gmml(zeros=0.5)", "gmml(zeros=0.5)"):
        assert corruption_from(words, VALUES) == ga.presets.gmml(zeros=0.5, values=VALUES)
    wanted = ga.presets.ablation(kind="replace", ratio=0.7, values=VALUES)
    assert corruption_from('ablation(kind="replace", ratio=0.7)', VALUES) == wanted


@pytest.mark.parametrize(
    "words",
    [
        "",
        "nonsense",
        "gmml; import os",
        "__import__('os').system('false')",
        "Noise().__class__",
        "(lambda: Noise())()",
        "[Noise() for _ in range(3)]",
        "InBoxes(**{})",
        "InBoxes(Boxes(ratio=2.0), Noise())",
        "Boxes(ratio=0.5)",
        "presets.names()",
        "keys(1, 2, [3])",
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(words: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be read .* Allowed: a preset \(ablation"):
        corruption_from(words, VALUES)
