"""The rule that judges claims: Welch's test against known values, and what must hold of any numbers."""

from __future__ import annotations

import math
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.claims.welch import LEVEL, MARGIN, SEEDS, Comparison, compare, judge

PERCENT = st.floats(0, 100, allow_nan=False).map(lambda value: round(value, 3))
SIDE = st.lists(PERCENT, min_size=1, max_size=6)
MANY = st.lists(PERCENT, min_size=SEEDS, max_size=6)
RELATION: Any = st.sampled_from([">", "=", "?"])


@pytest.mark.parametrize(
    ("ours", "theirs", "p"),
    [  # published worked examples, p to twelve digits
        ([3.0, 4.0, 1.0, 2.1], [490.2, 340.0, 433.9], 0.0107515611498),
        ([30.02, 29.99, 30.11, 29.97, 30.01, 29.99], [29.89, 29.93, 29.72, 29.98, 30.02, 29.98], 0.090773324286),
        (
            [19.8, 20.4, 19.6, 17.8, 18.5, 18.9, 18.3, 18.9, 19.5, 22.0],
            [28.2, 26.6, 20.1, 23.3, 25.2, 22.1, 17.7, 27.6, 20.6, 13.7, 23.2, 17.5, 20.6, 18, 23.9, 21.6, 24.3, 20.4, 24, 13.2],
            0.0359722710297,
        ),
    ],
)
def test_p_is_that_of_published_examples(ours: list[float], theirs: list[float], p: float) -> None:
    found = compare(ours, theirs)
    assert found is not None
    assert found.p == pytest.approx(p, rel=1e-9)


@given(MANY, MANY)
def test_it_is_scipys(ours: list[float], theirs: list[float]) -> None:
    stats = pytest.importorskip("scipy.stats")
    found = compare(ours, theirs)
    assert found is not None
    if found.p is None or min(map(spread, (ours, theirs))) < 0.1:  # scipy warns of numbers that hardly vary
        return
    wanted = stats.ttest_ind(ours, theirs, equal_var=False)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    for level, interval in ((0.95, found.interval), (0.90, found.narrow)):
        assert interval == pytest.approx(tuple(wanted.confidence_interval(level)), rel=1e-6, abs=1e-9)


def spread(values: list[float]) -> float:
    return max(values) - min(values)


@given(SIDE, SIDE, RELATION)
def test_one_seed_or_two_a_side_decide_nothing(ours: list[float], theirs: list[float], relation: Any) -> None:
    found = compare(ours, theirs)
    assert found is not None
    assert found.difference == fmean(ours) - fmean(theirs)
    assert found.seeds == (len(ours), len(theirs))
    if min(found.seeds) < SEEDS:
        assert judge(relation, found) == "undecided"
    if min(found.seeds) < 2:
        assert (found.p, found.interval, found.narrow) == (None, None, None)


@given(PERCENT, SIDE, RELATION)
def test_one_seed_decides_nothing_however_far_off(one: float, others: list[float], relation: Any) -> None:
    for pair in (([one], others), (others, [one]), ([one + 1e6], others)):
        assert judge(relation, compare(*pair)) == "undecided"


@given(MANY, MANY)
def test_the_other_way_round_is_the_same_with_the_other_sign(ours: list[float], theirs: list[float]) -> None:
    one, other = compare(ours, theirs), compare(theirs, ours)
    assert one is not None
    assert other is not None
    assert one.difference == -other.difference
    assert one.p == (None if other.p is None else pytest.approx(other.p))
    assert judge("=", one) == judge("=", other)
    swapped = {"higher": "lower", "lower": "higher"}
    assert judge("?", one) == swapped.get(judge("?", other), judge("?", other))
    if judge(">", one) == "holds":
        assert judge(">", other) == "does not hold"


@given(MANY)
def test_identical_samples_never_differ(values: list[float]) -> None:
    found = compare(values, values)
    assert found is not None
    assert found.difference == 0
    assert found.p is None or found.p == pytest.approx(1)
    assert judge("?", found) in ("equal", "undecided")
    assert judge(">", found) != "holds"


@given(PERCENT, PERCENT, st.integers(SEEDS, 6), RELATION)
def test_seeds_that_do_not_vary_say_nothing_of_chance(one: float, other: float, count: int, relation: Any) -> None:
    found = compare([one] * count, [other] * count)
    assert found is not None
    assert found.p is None
    assert judge(relation, found) == "undecided"


@given(PERCENT, MANY)
def test_one_side_may_lack_a_spread(one: float, others: list[float]) -> None:
    found = compare([one] * SEEDS, others)
    assert found is not None
    assert (found.p is None) == (spread(others) == 0)
    assert found.p is None or 0 <= found.p <= 1


@given(MANY, MANY)
def test_equality_is_two_one_sided_tests_at_the_level(ours: list[float], theirs: list[float]) -> None:
    found = compare(ours, theirs)
    assert found is not None
    if found.p is None:
        return
    above, below = (compare([value + shift for value in ours], theirs) for shift in (MARGIN, -MARGIN))
    sides = []
    for one, sign in ((above, 1), (below, -1)):
        assert one is not None
        assert one.p is not None
        sides.append(one.p / 2 if sign * one.difference > 0 else 1 - one.p / 2)
    if math.isclose(max(sides), LEVEL, rel_tol=1e-6):
        return
    assert (judge("=", found) == "holds") == (max(sides) < LEVEL)


@given(MANY, MANY)
def test_the_interval_leaves_out_zero_where_the_difference_counts(ours: list[float], theirs: list[float]) -> None:
    found = compare(ours, theirs)
    assert found is not None
    if found.p is None or found.interval is None or found.narrow is None or math.isclose(found.p, LEVEL, rel_tol=1e-6):
        return
    assert (found.p < LEVEL) == (found.interval[0] > 0 or found.interval[1] < 0)
    assert found.interval[0] <= found.narrow[0] <= found.difference <= found.narrow[1] <= found.interval[1]


@pytest.mark.parametrize(
    ("relation", "ours", "theirs", "verdict"),
    [
        (">", (30, 31, 32), (20, 21, 22), "holds"),
        (">", (20, 21, 22), (30, 31, 32), "does not hold"),
        (">", (20, 21, 22), (19, 20.9, 22), "undecided"),
        (">", (20.0, 20.1, 20.2), (20.1, 20.2, 20.0), "does not hold"),  # as much, within the margin
        (">", (21.0, 21.1, 21.2), (20.0, 20.1, 20.2), "holds"),  # more, by less than the margin
        ("=", (20.0, 20.1, 20.2), (20.1, 20.2, 20.0), "holds"),
        ("=", (21.0, 21.1, 21.2), (20.0, 20.1, 20.2), "holds"),
        ("=", (20, 21, 22), (30, 31, 32), "does not hold"),
        ("=", (20, 21, 22), (19, 20.9, 22), "undecided"),  # not to see a difference is not equality
        ("?", (20, 21, 22), (30, 31, 32), "lower"),
        ("?", (30, 31, 32), (20, 21, 22), "higher"),
        ("?", (20.0, 20.1, 20.2), (20.1, 20.2, 20.0), "equal"),
        ("?", (20, 21, 22), (19, 20.9, 22), "undecided"),
        (">", (40,), (20, 21, 22), "undecided"),
        (">", (40, 41), (20, 21, 22), "undecided"),
        (">", (), (20, 21, 22), "not run"),
        ("=", (20, 21, 22), (), "not run"),
    ],
)
def test_verdicts(relation: Any, ours: tuple[float, ...], theirs: tuple[float, ...], verdict: str) -> None:
    assert judge(relation, compare(ours, theirs)) == verdict


def test_flowers_after_fine_tuning_is_undecided() -> None:
    """The numbers that an earlier rule, two standard errors, called a difference."""
    found = compare((40.162456, 40.523466, 37.996390), (37.545127, 37.906137, 38.267148))
    assert found is not None
    assert found.p == pytest.approx(0.1641, abs=1e-4)
    assert found.interval == pytest.approx((-1.4770, 4.7863), abs=1e-3)
    assert judge(">", found) == "undecided"
    assert not isinstance(compare((), (1.0,)), Comparison)
