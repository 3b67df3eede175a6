"""The folder of a run: what it was told, the losses of its steps and epochs, and whether it is finished."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
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

    ``config.json``, ``steps.csv``, ``epochs.csv``, ``tensorboard/``, ``checkpoints/`` and, at the end, ``finished.json``.

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
        for name in ("steps.csv", "epochs.csv"):
            path = self.folder / name
            rows = read_rows(path)
            kept = [row for row in rows if int(row["step"]) <= step]
            if len(kept) < len(rows) or _torn(path):
                _rewrite(path, list(rows[0]) if rows else [], kept)

    def row(self, name: str, row: Mapping[str, float | int | str]) -> None:
        """Add a row to ``name``.csv and its numbers to TensorBoard."""
        if not self._writes:
            return
        try:
            _append(self.folder / f"{name}.csv", row)
            for key, value in row.items():
                if isinstance(value, float):
                    self.board().add_scalar(f"{name}/{key}", value, int(row["step"]))
        except OSError as error:  # a full disk must not end a run before its checkpoint says so
            print(f"gmml: a row of {name}.csv could not be written ({error}); the run goes on.")

    def history(self) -> list[dict[str, str]]:
        """The rows of ``epochs.csv``."""
        return read_rows(self.folder / "epochs.csv")

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
                print(f"gmml: TensorBoard could not write its last numbers ({error}); they are in the CSV files.")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The whole rows of a CSV; a last one that a kill tore is left out."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    return list(csv.DictReader(io.StringIO(whole)))


def _torn(path: Path) -> bool:
    return path.exists() and not path.read_text(encoding="utf-8").endswith("\n")


def _append(path: Path, row: Mapping[str, float | int | str]) -> None:
    written = {key: repr(value) if isinstance(value, float) else str(value) for key, value in row.items()}
    head: list[str] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            head = next(csv.reader(file), [])
    if not set(written) <= set(head):  # the first row, or one that says more than those before it
        _rewrite(path, [*head, *(key for key in written if key not in head)], [*read_rows(path), written])
        return
    line = io.StringIO()
    csv.DictWriter(line, head, restval="", lineterminator="\n").writerow(written)
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(line.getvalue())  # one write a row


def _rewrite(path: Path, head: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, head, restval="", lineterminator="\n")
    if head:
        writer.writeheader()
    writer.writerows(rows)
    write_aside(path, text.getvalue().removesuffix("\n"))
