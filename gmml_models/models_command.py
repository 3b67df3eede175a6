"""``gmml models``: the registry as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Models:
    """List the weights of the zoo: what each holds, what it was trained on, and who measured it."""

    pattern: str = "*"
    """Only names that match, as in the shell."""

    def run(self) -> int:
        """Print the table."""
        from fnmatch import fnmatch

        from rich.console import Console
        from rich.table import Table

        from gmml_models.zoo import registry

        entries = [entry for name, entry in sorted(registry().items()) if fnmatch(name, self.pattern)]
        if not entries:
            what = "the registry holds no weights yet" if self.pattern == "*" else f"no name matches {self.pattern}"
            print(f"gmml models: {what}.")
            print("Weights of others: gmml_models.from_pretrained(folder or Hub name), or gmml convert CHECKPOINT FOLDER.")
            return 0
        table = Table("name", "parameters", "holds", "size", "data", "epochs", "scores", "weights' licence", "where")
        for entry in entries:
            ours = entry.about.get("gmml", {})
            files = ours.get("files", {})
            data, recipe = ours.get("data", {}), ours.get("recipe", {})
            table.add_row(
                entry.name,
                "\n".join(f"{part} {number:,}" for part, number in ours.get("parameters", {}).items()),
                "\n".join(files),
                "\n".join(f"{file.get('size', 0) / 1e6:.1f} MB" for file in files.values()),
                f"{data.get('name', '')}\n{data.get('licence', '')}".strip(),
                str(recipe.get("epochs", "")),
                "\n".join(score(metric) for metric in ours.get("metrics", [])),
                str(entry.about.get("pretrained_cfg", {}).get("license", "unknown")),
                "in the package" if entry.folder else f"{entry.repo} at {entry.revision}",
            )
        Console().print(table)
        return 0


def score(metric: Mapping[str, Any]) -> str:
    """One line of a metric, with who measured it."""
    spread = f" ± {metric['spread']}" if metric.get("spread") is not None else ""
    return f"{metric.get('name', '?')} {metric.get('value', '?')}{spread} (by {metric.get('measured_by', 'unknown')})"
