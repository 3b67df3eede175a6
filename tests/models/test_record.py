"""The folder of a run: told once, rewound to a step, never torn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gmml_models.data.config import differences, record
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from gmml_models.train.config import check
from gmml_models.train.progress import clock
from gmml_models.train.run_folder import RunFolder, read_rows


def config(folder: Path, **changes: object) -> PretrainConfig:
    return replace(PretrainConfig(data="flowers", out=folder / "run", epochs=3), **changes)  # type: ignore[arg-type]


def begun(folder: Path) -> None:
    """A run with a checkpoint."""
    held = RunFolder(config(folder))
    (held.checkpoints / "step-00000001").mkdir(parents=True)


def test_a_run_without_a_checkpoint_may_be_told_anew(tmp_path: Path) -> None:
    RunFolder(config(tmp_path))
    RunFolder(config(tmp_path, lr=0.1))
    assert json.loads((tmp_path / "run" / "config.json").read_text())["lr"] == 0.1


def test_the_same_options_go_on_and_others_are_listed(tmp_path: Path) -> None:
    begun(tmp_path)
    RunFolder(config(tmp_path, workers=7, keep=3, pictures_every=0, stop_after=0.5))  # how fast, how visibly: free to differ
    with pytest.raises(UsageError, match=r"told otherwise: (?=.*epochs: 3 -> 4)(?=.*lr: 0.0005 -> 0.1)"):
        RunFolder(config(tmp_path, epochs=4, lr=0.1))
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert told["kind"] == "pretrain"
    assert told["epochs"] == 3


def test_another_kind_of_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(UsageError, match="kind: pretrain -> finetune"):
        RunFolder(FinetuneConfig(data="flowers", out=tmp_path / "run"))


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / "run"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="not a run's"):
        RunFolder(config(tmp_path))
    assert [path.name for path in theirs.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        RunFolder(config(tmp_path, out=theirs / "thesis.txt"))
    with pytest.raises(UsageError, match="cannot write"):
        RunFolder(config(tmp_path, out=theirs / "thesis.txt" / "run"))


def test_a_process_that_does_not_write_writes_nothing(tmp_path: Path) -> None:
    silent = RunFolder(config(tmp_path), writes=False)
    silent.row("epochs", {"step": 1, "loss": 0.5})
    silent.rewind(0)
    silent.finish({})
    assert not list(tmp_path.iterdir())


def test_a_config_survives_json(tmp_path: Path) -> None:
    told = record(config(tmp_path, mean=(0.1, 0.2, 0.3)))
    assert not differences(config(tmp_path, mean=(0.1, 0.2, 0.3)), json.loads(json.dumps(told)))
    assert differences(config(tmp_path), told) == ["mean: [0.1, 0.2, 0.3] -> None"]


def test_rows_come_back_exactly_and_rewind_to_a_step(tmp_path: Path) -> None:
    held = RunFolder(config(tmp_path))
    losses = [0.1 + 0.2, 1 / 3, 2.5e-17]
    for number, loss in enumerate(losses, 1):
        held.row("epochs", {"epoch": number, "step": 10 * number, "loss": loss})
    held.row("epochs", {"epoch": 4, "step": 40, "loss": float("nan"), "accuracy": 0.5})  # a later row may say more
    rows = held.history()
    assert [float(row["loss"]) for row in rows[:3]] == losses
    assert "accuracy" not in rows[0]
    assert (rows[3]["accuracy"], rows[3]["loss"]) == (0.5, None)
    assert "NaN" not in (tmp_path / "run" / "epochs.jsonl").read_text()
    held.rewind(20)
    assert [row["step"] for row in held.history()] == [10, 20]
    held.row("epochs", {"epoch": 3, "step": 30, "loss": losses[2], "accuracy": 0.5})
    assert [row["step"] for row in held.history()] == [10, 20, 30]
    held.close()


def test_a_torn_row_is_forgotten(tmp_path: Path) -> None:
    held = RunFolder(config(tmp_path))
    path = tmp_path / "run" / "epochs.jsonl"
    whole = '{"epoch": 1, "step": 10, "loss": 0.5}\n'
    path.write_text(whole + '{"epoch": 2, "step": 20, "loss": 0.')
    assert [row["step"] for row in read_rows(path)] == [10]
    held.rewind(20)
    assert path.read_text() == whole
    held.rewind(0)
    assert path.read_text() == ""
    held.row("epochs", {"epoch": 1, "step": 10, "loss": 0.25})
    assert held.history() == [{"epoch": 1, "step": 10, "loss": 0.25}]
    held.close()


def test_numbers_stand_in_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = RunFolder(config(tmp_path))
    held.row("epochs", {"epoch": 1, "step": 10, "loss": 0.25})
    held.finish({"steps": 10})
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    (scalar,) = events.Scalars("epochs/loss")
    assert (scalar.step, scalar.value) == (10, 0.25)
    assert json.loads((tmp_path / "run" / "finished.json").read_text()) == {"steps": 10}


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 10, "accumulate": 3}, "multiple of accumulate"),
        ({"lr": float("nan")}, "lr=nan"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"keep": 0}, "keep=0"),
    ],
)
def test_what_no_run_could_be_made_of_is_refused(tmp_path: Path, changes: dict[str, object], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        check(config(tmp_path, **changes))
    assert not list(tmp_path.iterdir())


def test_a_folder_may_be_given_as_text(tmp_path: Path) -> None:
    told: list[PretrainConfig | FinetuneConfig | EvaluateConfig] = []
    for kind in (PretrainConfig, FinetuneConfig, EvaluateConfig):
        told.append(kind(out=str(tmp_path / "run")))  # type: ignore[arg-type]  # as a reader of the documents would
    assert all(config.out == tmp_path / "run" for config in told)


def test_durations_in_words() -> None:
    assert [clock(seconds) for seconds in (45, 200, 7500, 300_000)] == ["45 s", "3 min", "2 h 05 min", "3 days 11 h"]
