"""What the numbers say about a claim, by a rule that was fixed before they were known.

Two rows are compared by their mean accuracy after fine-tuning. Where both have several seeds, a difference counts if it is larger
than two standard errors of it. Where one of them has one seed, it counts if it is larger than two standard deviations of a
difference of two single runs, whose spread is that of the rows with several seeds on the same images; the verdict then says so.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.claims.row import Claim, Row
from benchmarks.claims.rows import ROWS
from benchmarks.claims.run import Results, key, same


@dataclass(frozen=True)
class Numbers:
    """A measure of a row over the seeds that were run."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Sample standard deviation; None with one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def __str__(self) -> str:
        """``12.3 ± 0.4``, or without the spread."""
        return f"{self.mean:.1f}" if self.spread is None else f"{self.mean:.1f} ± {self.spread:.1f}"


def numbers(row: Row, results: Results, measure: str = "top1") -> Numbers | None:
    """Those of the seeds that were run with the row's present settings, as far as they were measured; None without any."""
    found = [results.get(key(row, seed)) for seed in row.seeds]
    known = [one[measure] for one in found if one is not None and same(row, one)]
    values = tuple(float(value) for value in known if value is not None)
    return Numbers(values) if values else None


def judge(row: Row, claim: Claim, results: Results, rows: Iterable[Row] = ROWS) -> tuple[str, str]:
    """The difference in points, and the verdict in words.

    Args:
        row: that the claim is about.
        claim: one of its claims.
        results: of all jobs.
        rows: among which the other row is, and those that tell the spread.
    """
    every = {one.name: one for one in rows}
    other = every[claim.against]
    ours, theirs = numbers(row, results), numbers(other, results)
    if ours is None or theirs is None:
        return "", "not run"
    difference = ours.mean - theirs.mean
    told = f"{difference:+.1f}"
    if ours.spread is not None and theirs.spread is not None:
        margin = 2 * math.sqrt(ours.spread**2 / len(ours.values) + theirs.spread**2 / len(theirs.values))
        return told, _words(claim, difference, margin)
    single = single_spread(row, results, every.values())
    if single is None:
        return told, "one seed, and no spread is known yet"
    margin = 2 * math.sqrt(2) * single
    return told, f"{_words(claim, difference, margin)}; one seed, ±{margin:.1f}"


def single_spread(row: Row, results: Results, rows: Iterable[Row]) -> float | None:
    """The standard deviation of a single run: that of rows with several seeds on the same images and model, pooled."""
    like = (row.finetune.data, row.finetune.model)
    alike = [one for one in rows if len(one.seeds) > 1 and (one.finetune.data, one.finetune.model) == like]
    found = [numbers(one, results) for one in alike]
    known = [one for one in found if one is not None and one.spread is not None]
    freedom = sum(len(one.values) - 1 for one in known)
    if not freedom:
        return None
    return math.sqrt(sum((len(one.values) - 1) * (one.spread or 0.0) ** 2 for one in known) / freedom)


def _words(claim: Claim, difference: float, margin: float) -> str:
    inside = abs(difference) <= margin
    match claim.expected:
        case "equal":
            return "held" if inside else "did not hold"
        case None:
            return "no difference seen" if inside else "higher" if difference > 0 else "lower"
        case "above" | "below":
            wanted = (difference > 0) == (claim.expected == "above")
            return "undecided" if inside else "held" if wanted else "did not hold"
