"""The tables of docs/reproducing.md, drawn from the JSON: nothing in them is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.claims.row import Claim, Row, beats
from benchmarks.claims.rows import CALTECH, FLOWERS, IMAGES, ROWS
from benchmarks.claims.run import Results, command, key, same
from benchmarks.claims.verdict import judge, numbers
from benchmarks.pages import put
from gmml_models.recipes.engine.progress import clock

_VERDICTS = {
    "Held": ("held",),
    "Did not hold": ("did not hold",),
    "Undecided, the difference is no larger than chance makes it": ("undecided", "no difference seen", "one seed"),
    "Asked without a claim, and a difference seen": ("higher", "lower"),
    "Not run": ("not run",),
}
_SHORT_HEAD = (
    "top-1 of the test images, percent",
    "linear probe, untrained to pretrained",
    "fine-tuned from scratch",
    "pretrained by GMML",
    "difference",
    "verdict",
)
_TITLES = {CALTECH: "Caltech-101", FLOWERS: "Flowers-102"}


def write_into(page: Path, results: Results, rows: Sequence[Row] = ROWS) -> None:
    """Draw the tables anew between the markers of a page.

    Raises:
        UsageError: no page, or no markers in it.
    """
    put(page, "claims", "make claims", draw(results, rows))


def write_short(page: Path, results: Results, rows: Sequence[Row] = ROWS) -> None:
    """Draw the main comparison, and how the claims fared, between the markers of a page.

    Raises:
        UsageError: no page, or no markers in it.
    """
    put(page, "claims in short", "make claims", draw_short(results, rows))


def draw_short(results: Results, rows: Sequence[Row] = ROWS) -> str:
    """Markdown: pretrained by GMML against from scratch, wherever both were run; all claims, counted by their verdicts."""
    every = {row.name: row for row in rows}
    counts, main = dict.fromkeys(_VERDICTS, 0), []
    for row, claim in [(one, claim) for one in rows for claim in one.claims]:
        difference, verdict = judge(row, claim, results, rows)
        counts[_head(verdict)] += 1
        scratch, tuned = every[claim.against], row.finetune
        if claim == beats(scratch) and row.pretrain is not None and difference:
            images = f"{IMAGES[tuned.data]:,} photographs of {_TITLES[tuned.data]}"
            what = f"{images}, `{tuned.model}`, {row.pretrain.epochs} + {tuned.epochs} epochs"
            known = [str(numbers(one, results, measure)) for measure in ("linear", "top1") for one in (scratch, row)]
            main.append([what, " to ".join(known[:2]), *known[2:], difference, verdict])
    told = "; ".join(f"{count} {head[0].lower()}{head[1:]}" for head, count in counts.items() if count)
    return "\n".join([*_lines(_SHORT_HEAD, main), "", f"Of {sum(counts.values())} comparisons {told}."])


def draw(results: Results, rows: Sequence[Row] = ROWS) -> str:
    """Markdown: claims with their verdicts, all rows with their numbers, the machines they were measured on."""
    asked = [(row, claim) for row in rows for claim in row.claims]
    claims = [_claim(row, claim, results, rows) for row, claim in asked]
    told = [(cells[-1], claim.words, row.name) for cells, (row, claim) in zip(claims, asked, strict=True)]
    head = ["claim", "the paper's numbers", "ours", "difference", "verdict"]
    numbers_head = ["row", "what", "fine-tuned", "k-NN", "linear probe", "seeds", "time", "command"]
    lines = [
        "### In short",
        "",
        *_in_short(told),
        "",
        "### Claims",
        "",
        *_lines(head, claims),
        "",
        "### Rows",
        "",
        *_lines(numbers_head, [_row(row, results) for row in rows]),
    ]
    known = [results[key(row, seed)] for row in rows for seed in row.seeds if same(row, results.get(key(row, seed)))]
    machines = list(dict.fromkeys(_machine(one["machine"]) for one in known))
    again = [(name, one["again"]) for name, one in results.items() if "again" in one]
    if machines:
        lines += ["", "Measured on:", "", *(f"- {one}" for one in machines)]
    for one in (results.get("speed cpu"), results.get("speed gpu")):
        if one is not None:
            lines += ["", _speed(one)]
    if again:
        equal = sum(bool(one["same"]) for _, one in again)
        names = ", ".join(f"`{name}`" for name, _ in again)
        lines += ["", f"Measured a second time from nothing: {names}. Every number was the same in {equal} of {len(again)}."]
    return "\n".join(lines)


def _head(verdict: str) -> str:
    """What a verdict is counted under."""
    return next(head for head, verdicts in _VERDICTS.items() if verdict.startswith(verdicts))


def _in_short(told: Sequence[tuple[str, str, str]]) -> list[str]:
    """The claims by their verdicts, each with its row."""
    lines = []
    for head in _VERDICTS:
        some = [f"{words} (`{row}`)" for verdict, words, row in told if _head(verdict) == head]
        if some:
            lines.append(f"- **{head}**, {len(some)}: {'; '.join(some)}.")
    return lines


def _claim(row: Row, claim: Claim, results: Results, rows: Sequence[Row]) -> list[str]:
    other = next(one for one in rows if one.name == claim.against)
    difference, verdict = judge(row, claim, results, rows)
    pair = " against ".join(f"{numbers(one, results) or 'not run'} (`{one.name}`)" for one in (row, other))
    return [f"{claim.words} ({claim.source})", claim.paper, pair, difference, verdict]


def _row(row: Row, results: Results) -> list[str]:
    found = [results[key(row, seed)] for seed in row.seeds if same(row, results.get(key(row, seed)))]
    name, ending = f"`{row.name}`", f"`{command(row)}`"
    if not found:
        return [name, row.what, "not run", "", "", "", "", ending]
    cells = [str(numbers(row, results, measure) or "") for measure in ("top1", "knn", "linear")]
    seeds = " ".join(str(one["seed"]) for one in found)
    return [name, row.what, *cells, seeds, clock(sum(one["seconds"] for one in found)), ending]


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


def _lines(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    table = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in table]
