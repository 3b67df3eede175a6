"""``python -m benchmarks.zoo``: draw the table of rank in docs/zoo.md anew, from the folders of weights in the package."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.pages import put
from gmml_models.errors import UsageError
from gmml_models.hub.markdown import mapping, table
from gmml_models.models.ranking import as_markdown, encoder_words, rankings
from gmml_models.models.registry import registry

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"
COMMAND = "python -m benchmarks.zoo"


def draw() -> str:
    """Markdown: what there is, then a table of rank for each data set that it is measured on."""
    entries = [entry for _, entry in sorted(registry().items())]
    rows = []
    for entry in entries:
        ours = mapping(entry.about.get("gmml"))
        data = mapping(ours.get("data"))
        size = sum(int(file["size"]) for file in mapping(ours.get("files")).values())
        licence = entry.about.get("pretrained_cfg", {}).get("license", "unknown")
        where = "in the package" if entry.folder else f"{entry.repo} at {entry.revision}"
        rows.append((entry.name, encoder_words(entry.about), data.get("name"), f"{size / 1e6:.1f} MB", where, licence))
    head = ("name", "encoder", "learnt from", "size", "where", "licence of the weights")
    return "\n\n".join([table(head, rows, keep=True), as_markdown(rankings(entries))])


def main() -> int:
    """Write the page; the exit code."""
    try:
        put(PAGE, "zoo", COMMAND, draw())
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
