"""The folder of a run: its options, the losses of its steps and epochs, and whether it is finished."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from gmml_models.atomic_write import write_aside
from gmml_models.data.config import differences, place, record
from gmml_models.errors import UsageError, shown
from gmml_models.train.config import TrainConfig, epochs_of
from gmml_models.train.owner import LOCK, Owner

if TYPE_CHECKING:
    from gmml_models.data.dataset import Identity
    from gmml_models.train.trainer import Outcome

_CONFIG, _DATA, _DONE = "config.json", "data.json", "finished.json"
_DYING = "checkpoints.part"
_LEFT = (  # what a run leaves beside its config
    *("finished.json", "checkpoints", _DYING, "data.json", "start.json", "health.json", "curves.png"),
    *("steps.jsonl", "epochs.jsonl", "steps.csv", "epochs.csv", "tensorboard", "pictures", "weights", "weights-best"),
)


@final
class RunFolder:
    """The files of one run, written by its first process, which owns the folder; see `Owner`.

    ``config.json``, ``data.json``, ``steps.jsonl``, ``epochs.jsonl``, ``tensorboard/``, ``checkpoints/`` and, at the end,
    ``finished.json``. The folder is only checked and locked here; `start` writes to it, once nothing can be refused any more.

    A finished run continues if ``config.epochs`` was raised. Schedules are functions of the step and of the number of epochs, so
    the remaining steps follow the schedule of the longer run: the learning rate jumps from its final value to its value in that
    run.

    Args:
        config: the config of the run. With ``config.overwrite``, `start` first removes the files of an earlier run.
        writes: False for all processes but the first, which then only read.
        data: the identity of the training images, if known.

    Raises:
        UsageError: another process owns the folder; the folder holds a run with other options or other data; or it cannot be
            written to.
    """

    def __init__(self, config: TrainConfig, *, writes: bool = True, data: Identity | None = None) -> None:
        self.folder = config.out
        self.checkpoints = self.folder / "checkpoints"
        self._writes = writes
        self._board: Any = None
        self._from = 0
        self._owner: Owner | None = None
        self._config, self._data = config, data
        self._extended: dict[str, Any] | None = None
        self._made = writes and not self.folder.exists()
        known = self.folder / _CONFIG
        if self.folder.exists() and not self.folder.is_dir():
            raise UsageError(f"gmml: {self.folder} is a file. Give another --out: an empty folder, or a new one.")
        if writes:
            if self.folder.exists() and not known.exists() and not any(self.checkpoints.glob("step-*")):
                strange = [path for path in self.folder.iterdir() if path.name != LOCK and not path.name.startswith(f"{_CONFIG}.")]
                if strange:
                    raise UsageError(
                        f"gmml: {self.folder} holds files that do not belong to a run. Give another --out: an empty folder, or a "
                        f"new one."
                    )
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._owner = Owner(self.folder)
            except OSError as error:
                self.abandon()
                raise UsageError(f"gmml: cannot write to {self.folder} ({error}). Give another --out.") from error
        try:
            # one without a checkpoint has nothing to lose, unless it is finished
            began = begun(self.folder) and not config.overwrite
            self._new = writes and (not began or not known.exists())
            if began and known.exists():
                self._same(config, data)
        except (OSError, UsageError) as error:
            self.abandon()
            if isinstance(error, UsageError):
                raise
            raise UsageError(f"gmml: cannot write to {self.folder} ({error}). Give another --out.") from error

    @contextmanager
    def unless_refused(self) -> Iterator[None]:
        """Leave the folder as it was found if the body, which prepares the run, raises an error."""
        try:
            yield
        except BaseException:
            self.abandon()
            raise

    def start(self, config: TrainConfig | None = None) -> RunFolder:
        """Record a run that begins, or one that goes on for more epochs than before.

        Args:
            config: the config of the run, where more of it was chosen since.

        Raises:
            UsageError: no space or no permission.
        """
        config, self._made = config or self._config, False
        if not self._writes:
            return self
        try:
            if self._new and config.overwrite and (self.folder / _CONFIG).exists():
                self._clear()
            if self._new:
                write_aside(self.folder / _CONFIG, json.dumps({"kind": config.kind, **record(config)}, indent=2))
            if self._extended is not None:
                write_aside(self.folder / _CONFIG, json.dumps(self._extended, indent=2))
                (self.folder / _DONE).unlink(missing_ok=True)
            if self._data is not None and (self._new or not (self.folder / _DATA).exists()):
                write_aside(self.folder / _DATA, json.dumps(self._data._asdict(), indent=2))
        except OSError as error:
            self.abandon()
            raise UsageError(f"gmml: cannot write to {self.folder} ({error}). Give another --out.") from error
        return self

    def abandon(self) -> None:
        """Let go of the folder, and remove it if it was made here and `start` was not called."""
        if self._made:
            with suppress(OSError):  # it could not be made, or something else lies in it by now
                (self.folder / LOCK).unlink(missing_ok=True)
                self.folder.rmdir()
        if self._owner is not None:
            self._owner.release()
            self._owner = None

    @property
    def done(self) -> int | None:
        """The number of steps of a finished run whose checkpoints were not kept; None for other runs."""
        if any(self.checkpoints.glob("step-*")) or not (self.folder / _DONE).exists():
            return None
        return int(read_json(self.folder / _DONE, "remove it to start over")["steps"])

    def _clear(self) -> None:
        """Remove the files of a run and nothing else; the config, which marks the folder as that of a run, comes last."""
        for name in (*_LEFT, _CONFIG):
            path = self.folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _longer(self, config: TrainConfig, told: dict[str, Any]) -> bool:
        """Continue a finished run whose epochs were raised, and record this."""
        before = told.get("epochs")
        if not isinstance(before, int) or epochs_of(config) <= before or not (self.folder / _DONE).exists():
            return False
        if self.done is not None:
            raise UsageError(
                f"gmml: the run in {self.folder} is finished after {before} epochs, and its checkpoints were not kept, so it "
                f"cannot be extended. Start another run from its weights: --weights and another --out."
            )
        return True

    def _same(self, config: TrainConfig, data: Identity | None) -> None:
        """Refuse options and data other than those that the run started with; the same data may have moved."""
        told = read_json(self.folder / _CONFIG, "remove it to resume with the given options, which must be the same")
        before = None
        if (self.folder / _DATA).exists():
            before = read_json(self.folder / _DATA, "remove it if the data is unchanged")
        same_data = data is not None and before is not None and before == data._asdict()
        longer = self._longer(config, told)
        free = (*(["data"] if same_data else []), *(["epochs"] if longer else []))
        other = differences(config, told, free=free)
        if told.get("kind") != config.kind:
            other.insert(0, f"kind: {told.get('kind')} -> {config.kind}")
        if other:
            raise UsageError(
                f"gmml: {self.folder} holds a run with other options: {'; '.join(other)}. Give the same options to resume, or "
                f"another --out for another run; nothing was changed."
            )
        if data is not None and before is not None and not same_data:
            what = (
                f"{before.get('images')} images of {before.get('bytes')} bytes -> {data.images} of {data.bytes}"
                if (before.get("images"), before.get("bytes")) != (data.images, data.bytes)
                else f"{data.images} images of the same size together, but with other names, sizes or labels"
            )
            raise UsageError(
                f"gmml: the run in {self.folder} started with other data: images: {what}. Use the original data, or another --out "
                f"for another run; nothing was changed."
            )
        if same_data and self._writes and place(told.get("data")) != place(config.data):
            lay = shown(str(told.get("data")))
            print(f"The data is now in {shown(config.data)}, and was in {lay}: its names and sizes are the same.")
        if longer and self._writes:
            epochs = [*told.get("epochs_before", []), told["epochs"]]
            self._extended = {"kind": config.kind, **record(config), "epochs_before": epochs}
            print(
                f"The finished run continues from epoch {epochs[-1]} to {config.epochs}: learning rate, weight decay and momentum "
                f"are those of a run of {config.epochs} epochs from here on."
            )

    def rewind(self, step: int) -> None:
        """Remove the rows after ``step``, where the run continues."""
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
            print(f"gmml: a row of {name}.jsonl could not be written ({error}); the run continues.")

    def history(self) -> list[dict[str, Any]]:
        """The rows of ``epochs.jsonl``."""
        return read_rows(self.folder / "epochs.jsonl")

    def board(self) -> Any:
        """The TensorBoard writer, created on first use."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._from + 1)
        return self._board

    def finish(self, facts: Mapping[str, Any], *, keep: int = 1) -> None:
        """Record that the run is finished; with ``keep=0``, remove its checkpoints."""
        if self._writes:
            write_aside(self.folder / _DONE, json.dumps(dict(facts), indent=2))
            if keep == 0 and self.checkpoints.is_dir():
                dying = self.folder / _DYING  # renamed first: half a removal must not look like checkpoints
                self.checkpoints.rename(dying)
                shutil.rmtree(dying, ignore_errors=True)
            self.close()

    def end(self, outcome: Outcome, broken: Mapping[str, str], *, keep: int = 1) -> None:
        """Report skipped files, and record that the run is finished if it is; with ``keep=0``, then remove its checkpoints."""
        for name, reason in broken.items():
            print(f"broken, and skipped: {name} ({reason})")
        if outcome.finished:
            self.finish({"steps": outcome.steps, "skipped": outcome.skipped, "broken": dict(broken)}, keep=keep)
        self.close()

    def close(self) -> None:
        """Flush TensorBoard, and release the folder."""
        self.abandon()
        board, self._board = self._board, None
        if board is not None:
            try:
                board.close()
            except OSError as error:
                print(f"gmml: TensorBoard could not write its last numbers ({error}); they are in the .jsonl files.")


def begun(folder: Path) -> bool:
    """True if the folder holds a run with a checkpoint, or a finished one."""
    return any((folder / "checkpoints").glob("step-*")) or (folder / _DONE).exists()


def read_json(path: Path, advice: str) -> dict[str, Any]:
    """Read a JSON file of a run.

    Raises:
        UsageError: the file is damaged; the message includes the advice.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, OSError) as error:
        raise UsageError(
            f"gmml: {path} is damaged ({error}), perhaps by a power cut. The checkpoints are intact: {advice}."
        ) from error


def _plain(value: float | int | str) -> float | int | str | None:
    """Replace NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a JSON lines file, ignoring a last row that is incomplete because the process was killed."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]
