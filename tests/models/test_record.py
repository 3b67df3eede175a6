"""The folder of a run: told once, rewound to a step, never torn."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from gmml_models.data.config import differences, record
from gmml_models.data.dataset import Identity
from gmml_models.errors import UsageError
from gmml_models.recipes.config import EvaluateConfig, FinetuneConfig, PretrainConfig
from gmml_models.recipes.finetuning import finetune
from gmml_models.recipes.pretraining import pretrain
from gmml_models.schedule import Schedule
from gmml_models.train.config import check
from gmml_models.train.progress import Progress, clock
from gmml_models.train.run_folder import RunFolder, read_rows
from tests.models.runs import Pictures, result, small


def config(folder: Path, **changes: object) -> PretrainConfig:
    return replace(PretrainConfig(data="flowers", out=folder / "run", epochs=3), **changes)  # type: ignore[arg-type]


def begun(folder: Path) -> None:
    """A run with a checkpoint."""
    held = RunFolder(config(folder)).start()
    (held.checkpoints / "step-00000001").mkdir(parents=True)


def test_a_run_without_a_checkpoint_may_be_told_anew(tmp_path: Path) -> None:
    RunFolder(config(tmp_path)).start()
    RunFolder(config(tmp_path, lr=0.1)).start()
    assert json.loads((tmp_path / "run" / "config.json").read_text())["lr"] == 0.1


def test_the_same_options_go_on_and_others_are_listed(tmp_path: Path) -> None:
    begun(tmp_path)
    RunFolder(config(tmp_path, workers=7, keep=3, pictures_every=0, stop_after=0.5))  # how fast, how visibly: free to differ
    with pytest.raises(UsageError, match=r"with other options: (?=.*epochs: 3 -> 4)(?=.*lr: 0.0005 -> 0.1)"):
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
    with pytest.raises(UsageError, match="do not belong to a run"):
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
    held = RunFolder(config(tmp_path)).start()
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
    held = RunFolder(config(tmp_path)).start()
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

    held = RunFolder(config(tmp_path)).start()
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
        ({"keep": -1}, "keep=-1"),
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


@pytest.mark.parametrize("done", [0, 4])
def test_without_a_terminal_the_first_step_is_told_at_once_and_the_others_every_half_minute(
    done: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress(1200, done, 64, shown=True) as progress:
        for step in range(done + 1, done + 4):
            if time.monotonic() >= progress.due:
                progress.show(step, 0.5, 0.0)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if not line.startswith("step")] == (["resumed: 4 of 1,200 steps were done"] if done else [])
    assert [line.split(" · ")[:2] for line in lines if line.startswith("step")] == [[f"step {done + 1}/1200", "loss 0.5000"]]
    assert 29 < progress.due - time.monotonic() <= 30
    with Progress(1200, 1200, 64, shown=True):  # a finished run, which is not resumed
        assert capsys.readouterr().err == ""


# who writes, and about which data

KNOWN = Identity(images=4, bytes=1000, sha256="aa")


def in_another_process(code: str) -> subprocess.Popen[str]:
    """Python that prints a line when it is there, and waits for its stdin to end."""
    child = subprocess.Popen(
        [sys.executable, "-c", f"{code}\nprint('there', flush=True)\ninput()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    return child


def test_of_two_processes_one_owns_the_folder_and_the_other_says_who(tmp_path: Path) -> None:
    code = (
        "from gmml_models.recipes.config import PretrainConfig; from gmml_models.train.run_folder import RunFolder;"
        f"held = RunFolder(PretrainConfig(data='flowers', out={str(tmp_path / 'run')!r}, epochs=3)).start()"
    )
    child = in_another_process(code)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UsageError, match=rf"is in use: process {child.pid} on .*, since .*another --out"):
        RunFolder(config(tmp_path, seed=1))
    RunFolder(config(tmp_path), writes=False)  # the other processes of a run ask for nothing
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    child.kill()  # however it ends
    child.communicate()
    first, second = RunFolder(config(tmp_path, seed=1)), RunFolder(config(tmp_path, seed=1))
    first.close()
    del first, second  # an exception lets go of a folder too
    RunFolder(config(tmp_path, seed=1)).close()
    child = in_another_process(code)  # let go
    child.communicate("\n")


def test_a_child_that_outlives_its_run_does_not_own_the_folder(tmp_path: Path) -> None:
    code = (
        "import os, time; from gmml_models.recipes.config import PretrainConfig;"
        "from gmml_models.train.run_folder import RunFolder;"
        f"held = RunFolder(PretrainConfig(data='flowers', out={str(tmp_path / 'run')!r}, epochs=3));"
        "pid = os.fork();\nif pid == 0: time.sleep(60); os._exit(0)\nprint(pid, flush=True)"
    )
    child = subprocess.Popen([sys.executable, "-c", f"{code}\ninput()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    orphan = int(child.stdout.readline())
    try:
        child.kill()
        child.wait()  # not communicate(): the orphan holds the pipe, too
        os.kill(orphan, 0)  # it lives
        RunFolder(config(tmp_path, seed=1))
    finally:
        os.kill(orphan, signal.SIGKILL)
        child.communicate()


@pytest.mark.parametrize("torn", ["", '{"kind": "pretrain", "lr"', "[1]"])
def test_a_torn_config_is_named_and_can_be_written_anew(tmp_path: Path, torn: str) -> None:
    begun(tmp_path)
    known = tmp_path / "run" / "config.json"
    known.write_text(torn)
    with pytest.raises(UsageError, match=r"config.json is damaged \(.*The checkpoints are intact: remove it"):
        RunFolder(config(tmp_path))
    known.unlink()
    RunFolder(config(tmp_path)).start()
    assert json.loads(known.read_text())["epochs"] == 3


def test_other_data_is_refused_though_there_is_as_much_of_it(tmp_path: Path) -> None:
    held = RunFolder(config(tmp_path), data=KNOWN).start()
    (held.checkpoints / "step-00000001").mkdir(parents=True)
    RunFolder(config(tmp_path), data=KNOWN)
    with pytest.raises(UsageError, match=r"other data: images: 4 images of the same size together, but with other names"):
        RunFolder(config(tmp_path), data=KNOWN._replace(sha256="bb"))
    with pytest.raises(UsageError, match=r"other data: images: 4 images of 1000 bytes -> 5 of 1200"):
        RunFolder(config(tmp_path), data=Identity(images=5, bytes=1200, sha256="bb"))
    (tmp_path / "run" / "data.json").unlink()  # as in runs of before
    RunFolder(config(tmp_path), data=KNOWN).start()
    assert json.loads((tmp_path / "run" / "data.json").read_text()) == KNOWN._asdict()


def test_the_same_data_may_lie_elsewhere_or_be_spelt_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flowers").mkdir()
    held = RunFolder(config(tmp_path), data=KNOWN).start()
    (held.checkpoints / "step-00000001").mkdir(parents=True)
    for spelling in ("flowers/", "./flowers", str(tmp_path / "flowers")):
        RunFolder(config(tmp_path, data=spelling), data=KNOWN)
        RunFolder(config(tmp_path, data=spelling))  # nothing is known of it
    assert capsys.readouterr().out == ""
    (tmp_path / "flowers").rename(tmp_path / "moved")
    RunFolder(config(tmp_path, data="moved"), data=KNOWN)
    assert "The data is now in moved, and was in flowers" in capsys.readouterr().out
    with pytest.raises(UsageError, match="data: 'flowers' -> 'moved'"):
        RunFolder(config(tmp_path, data="moved"))


# begun anew, made longer, kept small


def run_of(folder: Path, **changes: object) -> PretrainConfig:
    """A run of five steps an epoch."""
    plain: PretrainConfig = small(folder / "run", epochs=2, checkpoint_every=0, pictures_every=0)
    return replace(plain, **changes)  # type: ignore[arg-type]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file but the lock, which says who was there last."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "lock.json"}


def test_overwrite_removes_what_a_run_left_and_nothing_else(tmp_path: Path) -> None:
    pretrain(run_of(tmp_path), dataset=Pictures())
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="with other options: seed: 0 -> 1"):
        pretrain(run_of(tmp_path, seed=1), dataset=Pictures())
    pretrain(run_of(tmp_path, seed=1, overwrite=True), dataset=Pictures())
    fresh = run_of(tmp_path / "other", seed=1)
    pretrain(fresh, dataset=Pictures())
    assert result(tmp_path / "run") == result(fresh.out)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["seed"] == 1
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "weights").write_text("mine")
    with pytest.raises(UsageError, match="do not belong to a run"):  # a folder that no run began is not touched
        pretrain(replace(fresh, out=tmp_path / "theirs", overwrite=True), dataset=Pictures())
    assert (tmp_path / "theirs" / "weights").read_text() == "mine"


REFUSED = [
    ({"weights": "no/such/folder", "model": "auto"}, "no/such/folder"),
    ({"model": "resnet18"}, "resnet18"),
    ({"blocks": (99,)}, "blocks"),
    ({"resident": True, "resident_size": 10**7}, "GB are free"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_what_is_refused_leaves_no_folder_and_overwrites_nothing(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    plain = run_of(tmp_path)
    wrong = run_of(tmp_path, overwrite=True, **changes)
    with pytest.raises(UsageError, match=message):
        pretrain(replace(wrong, out=tmp_path / "new"), dataset=Pictures())
    assert not list(tmp_path.iterdir())
    pretrain(plain, dataset=Pictures())
    before = files_of(plain.out)
    with pytest.raises(UsageError, match=message):
        pretrain(wrong, dataset=Pictures())
    assert files_of(plain.out) == before


def test_overwriting_the_weights_to_start_from_is_refused(tmp_path: Path) -> None:
    plain = run_of(tmp_path)
    pretrain(plain, dataset=Pictures())
    before = files_of(plain.out)
    weights = str(plain.out / "weights")
    with pytest.raises(UsageError, match=r"gmml pretrain: --overwrite would remove the weights.*Give another --out, or copy"):
        pretrain(run_of(tmp_path, weights=weights, model="auto", overwrite=True), dataset=Pictures())
    with pytest.raises(UsageError, match="gmml finetune: --overwrite would remove the weights"):
        finetune(FinetuneConfig(data="pictures", out=plain.out, weights=weights, overwrite=True), dataset=Pictures())
    assert files_of(plain.out) == before
    shutil.copytree(plain.out / "weights", tmp_path / "kept")  # the advice
    pretrain(run_of(tmp_path, weights=str(tmp_path / "kept"), model="auto", overwrite=True), dataset=Pictures())


def test_a_dry_run_overwrites_nothing(tmp_path: Path) -> None:
    pretrain(run_of(tmp_path), dataset=Pictures())
    before = result(tmp_path / "run")
    pretrain(run_of(tmp_path, seed=1, overwrite=True, dry_run=True), dataset=Pictures())
    assert result(tmp_path / "run") == before


def test_a_finished_run_is_made_longer_by_the_schedule_of_the_longer_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretrain(run_of(tmp_path), dataset=Pictures())
    longer = run_of(tmp_path, epochs=5)
    outcome = pretrain(longer, dataset=Pictures())
    assert "The finished run continues from epoch 2 to 5" in capsys.readouterr().out
    assert (outcome.finished, outcome.steps, len(outcome.history)) == (True, 25, 5)
    rule = Schedule(steps=25, warmup=5, lr=longer.lr * 8 / 256, min_lr=1e-6, weight_decay=0.04, weight_decay_end=0.4)
    rates = [(row["lr"], row["weight_decay"]) for row in outcome.history]
    assert rates[2:] == [(pytest.approx(rule.lr_at(step)), pytest.approx(rule.weight_decay_at(step))) for step in (14, 19, 24)]
    assert rates[1] == (pytest.approx(1e-6), pytest.approx(0.4)), "what lies behind is as it was"
    told = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (told["epochs"], told["epochs_before"]) == (5, [2])
    assert json.loads((tmp_path / "run" / "finished.json").read_text())["steps"] == 25
    # one that was stopped on the longer way comes to the same
    other = run_of(tmp_path / "stopped")
    pretrain(other, dataset=Pictures())
    assert pretrain(replace(other, epochs=5, stop_after=0.0), dataset=Pictures()).steps == 11
    assert pretrain(replace(other, epochs=5), dataset=Pictures()).finished
    assert result(other.out) == result(longer.out)
    with pytest.raises(UsageError, match="with other options: epochs: 5 -> 2"):
        pretrain(run_of(tmp_path), dataset=Pictures())


def test_a_run_that_is_not_finished_is_not_made_longer(tmp_path: Path) -> None:
    assert not pretrain(run_of(tmp_path, stop_after=0.0), dataset=Pictures()).finished
    with pytest.raises(UsageError, match="with other options: epochs: 2 -> 5"):
        pretrain(run_of(tmp_path, epochs=5), dataset=Pictures())


def test_without_checkpoints_at_the_end_a_run_is_small_and_says_what_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"method": "sit", "head_width": 512}
    held = run_of(tmp_path / "held", **options)
    pretrain(held, dataset=Pictures())
    lean = run_of(tmp_path / "lean", keep=0, **options)
    assert not pretrain(replace(lean, stop_after=0.0), dataset=Pictures()).finished
    assert list((lean.out / "checkpoints").iterdir()), "while it lasts there is one"
    pretrain(lean, dataset=Pictures())
    assert not list(lean.out.glob("checkpoints*"))
    assert result(lean.out) == result(held.out)
    encoder = (lean.out / "weights" / "model.safetensors").stat().st_size
    assert size_of(lean.out) < 3 * encoder < size_of(held.out)
    capsys.readouterr()
    again = pretrain(lean, dataset=Pictures())
    assert (again.finished, again.steps, result(lean.out)) == (True, 10, result(held.out))
    assert "Weights:" in capsys.readouterr().out
    with pytest.raises(UsageError, match="checkpoints were not kept, so it cannot be extended"):
        pretrain(replace(lean, epochs=5), dataset=Pictures())


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
