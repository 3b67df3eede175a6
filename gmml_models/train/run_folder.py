"""The folder of a run: what it was told, the losses of its steps and epochs, and whether it is finished."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gmml_models.atomic_write import write_aside
from gmml_models.data.config import differences, record
from gmml_models.errors import UsageError
from gmml_models.train.config import TrainConfig

if TYPE_CHECKING:
    from gmml_models.train.trainer import Outcome

_CONFIG, _DONE = "config.json", "finished.json"


@final
class RunFolder:
    """Files of one run, written by its first process.

    ``config.json``, ``steps.jsonl``, ``epochs.jsonl``, ``tensorboard/``, ``checkpoints/`` and, at the end, ``finished.json``.

    Args:
        config: of the run.
        writes: False for all processes but the first, which then only read.

    Raises:
        UsageError: the folder holds a run that was told otherwise, or cannot be written to.
    """

    def __init__(self, config: TrainConfig, *, writes: bool = True) -> None:
        self.folder = config.out
        self.checkpoints = self.folder / "checkpoints"
        self._writes = writes
        self._board: Any = None
        self._from = 0
        known = self.folder / _CONFIG
        began = known.exists() and any(self.checkpoints.glob("step-*"))  # one without a checkpoint has nothing to lose
        if began:
            told = json.loads(known.read_text(encoding="utf-8"))
            other = differences(config, told)
            if told.get("kind") != config.kind:
                other.insert(0, f"kind: {told.get('kind')} -> {config.kind}")
            if other:
                raise UsageError(
                    f"gmml: {self.folder} holds a run that was told otherwise: {'; '.join(other)}. Give the same options to go on, "
                    "or another --out for another run; nothing was changed."
                )
        elif self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"gmml: {self.folder} is a file. Give another --out: an empty folder, or a new one.")
        elif self.folder.exists() and any(self.folder.iterdir()) and writes and not known.exists():
            raise UsageError(
                f"gmml: {self.folder} holds files that are not a run's. Give another --out: an empty folder, or a new one."
            )
        if writes:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not began:
                    write_aside(known, json.dumps({"kind": config.kind, **record(config)}, indent=2))
            except OSError as error:
                raise UsageError(f"gmml: cannot write to {self.folder} ({error}). Give another --out.") from error

    def rewind(self, step: int) -> None:
        """Forget the rows behind ``step``: the run goes on from there."""
        self._from = step
        if not self._writes:
            return
        for name in ("steps.jsonl", "epochs.jsonl"):
            path = self.folder / name
            whole = "".join(json.dumps(row) + "\n" for row in read_rows(path) if row["step"] <= step)
            if path.exists() and path.read_text(encoding="utf-8") != whole:
                write_aside(path, whole.encode())

    def row(self, name: str, row: Mapping[str, float | int | str]) -> None:
        """Add a line to ``name``.jsonl, and its floats to TensorBoard."""
        if not self._writes:
            return
        try:
            with (self.folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: _plain(value) for key, value in row.items()}) + "\n")  # one write a row
            for key, value in row.items():
                if isinstance(value, float):
                    self.board().add_scalar(f"{name}/{key}", value, int(row["step"]))
        except OSError as error:  # a full disk must not end a run before its checkpoint says so
            print(f"gmml: a row of {name}.jsonl could not be written ({error}); the run goes on.")

    def history(self) -> list[dict[str, Any]]:
        """The rows of ``epochs.jsonl``."""
        return read_rows(self.folder / "epochs.jsonl")

    def board(self) -> Any:
        """The writer of TensorBoard, made when it is first asked for."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._from + 1)
        return self._board

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Note that the run is at its end."""
        if self._writes:
            write_aside(self.folder / _DONE, json.dumps(dict(facts), indent=2))
            self.close()

    def end(self, outcome: Outcome, broken: Mapping[str, str]) -> None:
        """Say what was left out, and note it if the run is finished."""
        for name, reason in broken.items():
            print(f"broken, and left out: {name} ({reason})")
        if outcome.finished:
            self.finish({"steps": outcome.steps, "skipped": outcome.skipped, "broken": dict(broken)})
        self.close()

    def close(self) -> None:
        """Flush TensorBoard."""
        board, self._board = self._board, None
        if board is not None:
            try:
                board.close()
            except OSError as error:
                print(f"gmml: TensorBoard could not write its last numbers ({error}); they are in the .jsonl files.")


def _plain(value: float | int | str) -> float | int | str | None:
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; a last one that a kill tore is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
