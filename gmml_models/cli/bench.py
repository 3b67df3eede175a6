"""``gmml bench``: measures how fast corruption is on this machine, compared with a copy of the batch and the installed peers."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from gmml_models.errors import UsageError


@dataclass(frozen=True)
class Bench:
    """Time our corruptions, a copy of the batch, and the other libraries that are installed."""

    full: bool = False
    """Measure all sizes, batches and dtypes, which takes an hour or more. By default only a few are measured, in less than five
    minutes."""
    peer: tuple[str, ...] = ()
    """Your own functions to time as well, as MODULE:FUNCTION; each is called with the batch."""
    only: tuple[str, ...] = ()
    """Time only contenders that match these shell patterns, such as "gmml*"; the copies and your own functions always run."""
    shape: tuple[str, ...] = ()
    """Batch shapes to measure instead, such as 64x3x224x224 or 8x1x64x64x64."""
    dtype: Literal["float32", "bfloat16", "uint8"] = "float32"
    """Dtype of the batches of --shape."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to use; auto is the GPU if there is one."""
    threads: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Number of CPU threads of torch; with more than one, other programs affect the times."""
    rounds: Annotated[int, tyro.conf.arg(metavar="N")] = 15
    """Largest number of calls timed for one batch; at least three for slow ones."""
    memory: Annotated[float, tyro.conf.arg(metavar="GB")] = 2.0
    """Memory that a batch may need together with its results; larger batches are skipped and listed."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File for the report, as JSON."""

    def run(self) -> int:
        """Measure, print the tables, and write the report; the exit code is 1 if your own contender failed."""
        if self.threads < 1 or self.rounds < 1 or self.memory <= 0:
            raise UsageError("gmml bench: --threads, --rounds and --memory must be positive.")
        if self.output is not None and not self.output.absolute().parent.is_dir():
            raise UsageError(f"gmml bench: the folder of --output {self.output} does not exist. Make it first.")
        import torch

        from gmml_models.bench.peers import own_peer, present
        from gmml_models.bench.report import FULL, QUICK, choose, markdown, read_case, run, to_json
        from gmml_models.bench.timing import Effort

        if self.device == "cuda" and not torch.cuda.is_available():
            raise UsageError("gmml bench: --device cuda, but torch finds no GPU here. Leave the option out to use the CPU.")
        device = "cuda" if self.device != "cpu" and torch.cuda.is_available() else "cpu"
        cases = [read_case(written, self.dtype) for written in self.shape]
        peers, absent = present()
        peers = choose([*peers, *map(own_peer, self.peer)], self.only)
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            report = run(
                cases or (FULL if self.full else QUICK),
                peers,
                absent=absent,
                device=device,
                effort=Effort(rounds=self.rounds, seconds=2.0 if self.full or self.shape else 0.4),
                memory=self.memory,
                tell=lambda line: print(line, file=sys.stderr, flush=True),
            )
        finally:
            torch.set_num_threads(before)
        if not report["rows"]:
            raise UsageError(
                f"gmml bench: {', '.join(report['cut'])} would need more than {self.memory:g} GB. Give a larger --memory."
            )
        print(markdown(report))
        if self.output is not None:
            self.output.write_text(to_json(report), encoding="utf-8")
        failed = [row for row in report["rows"] if row["group"] == "yours" and row["error"]]
        for row in failed:
            print(f"gmml bench: {row['peer']} on {row['case']} failed: {row['error']}", file=sys.stderr)
        return 1 if failed else 0
