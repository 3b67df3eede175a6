"""From a job to its end: train, tell what was broken, export, tell what comes next."""

from __future__ import annotations

from collections.abc import Callable

from gmml_models.train.dry_run import rehearse
from gmml_models.train.job import Job, Outcome
from gmml_models.train.trainer import train


def carry_out(job: Job, *, export: Callable[[Outcome], None], summary: Callable[[Outcome], str]) -> Outcome:
    """Train; at the end of the run export, and in any case say how it stands. A dry run takes a few steps and keeps nothing.

    Args:
        job: what is trained.
        export: writes the weights; called on the first process, once the run is finished.
        summary: what a person reads at the end.

    Raises:
        UsageError: as `train` and ``export``.
    """
    if job.config.dry_run:
        return rehearse(job)
    outcome = train(job)
    first, broken = job.accelerator.is_main_process, dict(job.feed.broken)
    if first:
        for name, reason in broken.items():
            print(f"broken, and left out: {name} ({reason})")
    if outcome.finished and first:
        export(outcome)
        job.record.finish({"steps": outcome.steps, "skipped": outcome.skipped, "broken": broken})
    if first:
        job.record.close()
        print(summary(outcome))
    return outcome
