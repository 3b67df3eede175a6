"""What numbers decide, by a rule that is stated before they are known.

Two rows are compared over their seeds by Welch's t-test, which does not take their spreads for equal. A **difference** is shown at
p < `LEVEL`, over at least `SEEDS` seeds a side. **Equality** is shown where two one-sided tests at `LEVEL` refuse a difference of
`MARGIN` either way: where the 90 % interval of the difference lies within it. One seed decides nothing, nor do seeds that all came
to one number, which say nothing of chance. Nothing is corrected for the number of comparisons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance
from typing import Literal

LEVEL, SEEDS, MARGIN = 0.05, 3, 2.0
"""Of both tests; a side; in points, either way."""

Verdict = Literal["holds", "does not hold", "higher", "lower", "equal", "undecided", "not run"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two rows by one measure.

    Attributes:
        difference: of the means, ours less theirs, in points.
        seeds: of ours and of theirs.
        p: two-sided; None where a side has one seed, or none of them varies.
        interval: of the difference, 95 %; None likewise.
        narrow: 90 %, which decides equality; None likewise.
    """

    difference: float
    seeds: tuple[int, int]
    p: float | None = None
    interval: tuple[float, float] | None = None
    narrow: tuple[float, float] | None = None


def compare(ours: Sequence[float], theirs: Sequence[float]) -> Comparison | None:
    """Welch's t-test, with the degrees of freedom of Welch and Satterthwaite.

    Args:
        ours: one number a seed.
        theirs: likewise.

    Returns:
        None where a side has no number.
    """
    seeds = (len(ours), len(theirs))
    if not min(seeds):
        return None
    difference = fmean(ours) - fmean(theirs)
    parts = [variance(one) / len(one) if len(one) > 1 else 0.0 for one in (ours, theirs)]
    if min(seeds) < 2 or not sum(parts):
        return Comparison(difference=difference, seeds=seeds)
    from scipy.special import stdtr, stdtrit  # here, so that rows run where it is missing

    error = sqrt(sum(parts))
    freedom = 1 / sum((part / sum(parts)) ** 2 / (count - 1) for part, count in zip(parts, seeds, strict=True))
    wide, near = (float(stdtrit(freedom, 1 - tail)) * error for tail in (LEVEL / 2, LEVEL))
    return Comparison(
        difference=difference,
        seeds=seeds,
        p=2 * float(stdtr(freedom, -abs(difference) / error)),
        interval=(difference - wide, difference + wide),
        narrow=(difference - near, difference + near),
    )


def judge(relation: Literal[">", "=", "?"], found: Comparison | None) -> Verdict:
    """What a comparison says of a claim.

    A claim of more (>) does not hold where less or equality is shown, one of equality (=) where a difference is and equality is
    not. Where nothing is claimed (?) the verdict is what is shown.
    """
    if found is None:
        return "not run"
    if found.p is None or found.narrow is None or min(found.seeds) < SEEDS:
        return "undecided"
    differs, equal = found.p < LEVEL, max(map(abs, found.narrow)) < MARGIN
    if not (differs or equal):
        return "undecided"
    if relation == "?":
        return ("higher" if found.difference > 0 else "lower") if differs else "equal"
    shown = differs and found.difference > 0 if relation == ">" else equal
    return "holds" if shown else "does not hold"
