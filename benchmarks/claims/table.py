"""The tables of docs/reproducing.md and the README, drawn from the JSON: nothing in them is written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmarks.claims.rows import BY_NAME, CLAIMS, MEASURES, ROWS, Claim, Row
from benchmarks.claims.run import Results, command, known_jobs
from benchmarks.claims.welch import LEVEL, MARGIN, SEEDS, Comparison, Verdict, compare, judge
from benchmarks.pages import lines, put
from gmml_models.train.progress import clock

RULE = (
    f"A difference counts at p < {LEVEL} by Welch's t-test, over at least {SEEDS} seeds a side; equality counts where the 90 % "
    f"interval of the difference lies within {MARGIN:g} points either way; one seed decides nothing"
)
_DECIDES = ["difference, points", "p", "seeds", "verdict"]
_VERDICTS: tuple[Verdict, ...] = ("holds", "does not hold", "higher", "lower", "equal", "undecided", "not run")


def write_into(page: Path, results: Results) -> None:
    """Draw the tables anew between the markers of a page.

    Raises:
        UsageError: no page, or no markers in it.
    """
    put(page, "claims", "make claims", draw(results))


def write_short(page: Path, results: Results) -> None:
    """Draw what pretraining gains, and how all claims fared, between the markers of a page.

    Raises:
        UsageError: no page, or no markers in it.
    """
    put(page, "claims in short", "make claims", draw_short(results))


def draw_short(results: Results, claims: Sequence[Claim] = CLAIMS) -> str:
    """Markdown: each claim of the first two questions by its first measure; all claims, counted by their verdicts."""
    every = judged(results, claims)
    questions = list(dict.fromkeys(claim.question for claim in claims))[:2]
    rows = [
        [one.claim.words, MEASURES[one.measure], number(one.ours), number(one.theirs), *cells(one.found), one.verdict]
        for one in every
        if one.claim.question in questions and one.measure == one.claim.measures[0] and one.found is not None
    ]
    return "\n".join(
        [*lines(["claim, top-1 of the test images", "measured by", "ours", "against", *_DECIDES], rows), "", _counted(every)]
    )


def draw(results: Results, claims: Sequence[Claim] = CLAIMS, rows: Sequence[Row] = ROWS) -> str:
    """Markdown: claims with their verdicts, question by question, all rows with their numbers, and the machines."""
    every = judged(results, claims)
    asked = list(dict.fromkeys(claim.question for claim in claims))
    fared = [
        [_counts([one for one in every if (one.claim.question, one.measure) == (ask, by)]) for by in MEASURES] for ask in asked
    ]
    short = lines(["question", *MEASURES.values()], [[ask, *counts] for ask, counts in zip(asked, fared, strict=True)])
    text = [_counted(every), "", *short]
    for question, some in groupby(every, lambda one: one.claim.question):
        head = ["claim", "the paper's numbers", "measured by", "ours", *_DECIDES]
        text += [
            "",
            f"### {question}",
            "",
            *lines(head, [_claim(one) for one in some if one.found or one.measure == one.claim.measures[0]]),
        ]
    head = ["row", "what", *MEASURES.values(), "seeds", "time", "command"]
    text += ["", "### Rows", "", *lines(head, [_row(row, results) for row in rows])]
    machines = dict.fromkeys(_machine(one["machine"]) for row in rows for one in known_jobs(row, results))
    text += ["", "Measured on:", "", *(f"- {one}" for one in machines)] if machines else []
    text += [line for one in ("speed cpu", "speed gpu") if one in results for line in ("", _speed(results[one]))]
    again = {name: one["again"]["same"] for name, one in results.items() if "again" in one}
    if again:
        names = ", ".join(f"`{name}`" for name in again)
        text += [
            "",
            f"Measured a second time from nothing: {names}. Every number was the same in {sum(again.values())} of {len(again)}.",
        ]
    return "\n".join(text)


class Judged(NamedTuple):
    """A claim by one of its measures: the numbers of both sides, what they come to, and what that says."""

    claim: Claim
    measure: str
    ours: list[float]
    theirs: list[float]
    found: Comparison | None
    verdict: Verdict


def judged(results: Results, claims: Sequence[Claim] = CLAIMS) -> list[Judged]:
    """Every claim by each of its measures."""
    every = []
    for claim in claims:
        for measure in claim.measures:
            ours, theirs = (values(BY_NAME[name], results, measure) for name in (claim.ours, claim.theirs))
            found = compare(ours, theirs)
            every.append(Judged(claim, measure, ours, theirs, found, judge(claim.relation, found)))
    return every


def values(row: Row, results: Results, measure: str) -> list[float]:
    """One number a seed that was run with the row's present settings, as far as it was measured."""
    return [float(one[measure]) for one in known_jobs(row, results) if one[measure] is not None]


def number(found: Sequence[float]) -> str:
    """``12.3 ± 0.4``, mean and sample standard deviation; without the latter for one seed; "not run" for none."""
    if not found:
        return "not run"
    return f"{fmean(found):.1f} ± {stdev(found):.1f}" if len(found) > 1 else f"{found[0]:.1f}"


def cells(found: Comparison | None, *, narrow: bool = False) -> list[str]:
    """The difference with its interval, p, and the seeds of both sides.

    Args:
        found: None where one side was not run.
        narrow: the interval of 90 %, which decides equality, instead of that of 95 %.
    """
    if found is None:
        return ["", "", ""]
    interval = found.narrow if narrow else found.interval
    told = f" [{interval[0]:+.1f}, {interval[1]:+.1f}]{' (90 %)' * narrow}" if interval else ""
    p = "" if found.p is None else f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001"
    return [f"{found.difference:+.1f}{told}", p, "{} and {}".format(*found.seeds)]


def _claim(one: Judged) -> list[str]:
    """What is the same for all measures of a claim is said once."""
    claim = one.claim
    told = [f"{claim.words} ({claim.source}): `{claim.ours}` against `{claim.theirs}`", claim.paper]
    numbers = f"{number(one.ours)} against {number(one.theirs)}"
    said = told if one.measure == claim.measures[0] else ["", ""]
    return [*said, MEASURES[one.measure], numbers, *cells(one.found, narrow=claim.relation == "="), one.verdict]


def _counted(every: Sequence[Judged]) -> str:
    claims = len({one.claim for one in every})
    return f"{RULE}. Of {len(every)} comparisons ({claims} claims, by up to {len(MEASURES)} measures): {_counts(every)}."


def _counts(some: Sequence[Judged]) -> str:
    fared = Counter(one.verdict for one in some)
    return ", ".join(f"{verdict} {fared[verdict]}" for verdict in _VERDICTS if fared[verdict])


def _row(row: Row, results: Results) -> list[str]:
    found = known_jobs(row, results)
    numbers = [number(values(row, results, measure)) if measure in row.measures else "" for measure in MEASURES]
    if not found:
        numbers = ["not run", "", ""]
    seeds = [int(one["seed"]) for one in found]
    time = clock(sum(one["seconds"] for one in found)) if found else ""
    return [f"`{row.name}`", row.what, *numbers, " ".join(map(str, seeds)), time, f"`{command(row, seeds or row.seeds)}`"]


def _machine(one: dict[str, object]) -> str:
    hardware = f"{one['gpu']}, {one['cpu']}" if one["gpu"] else one["cpu"]
    names = ("python", "torch", "timm", "torchvision", "scikit-learn", "gmml")
    packages = ", ".join(f"{name} {one[name]}" for name in names if name in one)
    return f"{hardware}, {one['threads']} thread(s), {one['system']}; {packages}; {one['date']}"


def _speed(one: dict[str, Any]) -> str:
    return (
        f"Speed of resident pretraining ({one['model']}, {one['batch_size']} images a step, {one['precision']}): "
        f"{one['recipe']:.0f} img/s, {one['share']:.1%} of the {one['step']:.0f} img/s of the same model's step on one "
        f"fixed batch; `python -m benchmarks.claims --data FOLDER --speed`, {_machine(one['machine'])}."
    )
