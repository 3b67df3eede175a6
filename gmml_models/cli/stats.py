"""``gmml stats``: prints the mean and standard deviation of a data set as options for the other commands."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gmml_models.recipes.config import StatsConfig

if TYPE_CHECKING:
    from gmml_models.data.channel_stats import ChannelStats


@dataclass(frozen=True, kw_only=True)
class Stats(StatsConfig):
    """Compute the mean and standard deviation of each channel of a data set. Every image has the same weight, whatever its size."""

    def run(self) -> int:
        """Read all images, and print two lines to paste; the exit code is 1 if images had to be skipped."""
        import torch
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        from gmml_models.data.channel_stats import channel_stats
        from gmml_models.data.loader import workers_for
        from gmml_models.data.sources import Source, open_source
        from gmml_models.recipes.labelled_data import tell

        source = open_source(self)
        tell("gmml stats", source)
        console = Console(stderr=True)
        columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)
            threads = workers_for(torch.device("cpu"), self.workers)
            found = channel_stats(source, threads=threads, progress=lambda done, of: bar.update(task, completed=done, total=of))
        for name, reason in found.broken.items():
            print(f"gmml stats: {name} is skipped: {reason}.", file=sys.stderr)
        if self.json:
            aside = {one.name: one.reason for one in source.left} if isinstance(source, Source) else {}
            whole = {"mean": found.mean, "std": found.std, "images": found.images, "broken": dict(found.broken), "left_out": aside}
            print(json.dumps(whole))
        else:
            print("\n".join(words(found)))
        for channel, std in enumerate(found.std):
            if std == 0:
                print(
                    f"gmml stats: channel {channel} is constant, so its standard deviation of 0 cannot be used for normalisation.",
                    file=sys.stderr,
                )
        return 1 if found.broken or (isinstance(source, Source) and source.lost) else 0


def words(found: ChannelStats) -> list[str]:
    """The statistics, as options of the other commands."""
    return [f"--{name} {' '.join(f'{one:.4f}' for one in values)}" for name, values in (("mean", found.mean), ("std", found.std))]
