"""``gmml embed``: writes the features of a folder of images to a file."""

from __future__ import annotations

from dataclasses import dataclass, fields

from gmml_models.recipes.config import EmbedConfig


@dataclass(frozen=True, kw_only=True)
class Embed(EmbedConfig):
    """Write the features of every image in a folder as npz, CSV or parquet, depending on the extension of --out.

    Run the same command again to resume.
    """

    def run(self) -> int:
        """Compute the features, with a progress bar on a terminal; the exit code is 1 if images had to be skipped."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from gmml_models.recipes.embedding import embed
        from gmml_models.train.progress import teller

        config = EmbedConfig(**{one.name: getattr(self, one.name) for one in fields(EmbedConfig)})
        console = Console(stderr=True)
        tell = teller("images embedded", shown=not console.is_terminal)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def show(done: int, of: int) -> None:
                bar.update(task, completed=done, total=of)
                tell(done, of)

            found = embed(config, progress=show)
        print(f"{found.path}: {found.images:,} images, {found.width} numbers each.")
        return 1 if found.left_out else 0
