"""A GPU session is written row by row, goes on where it ended, and runs to its end, on the CPU and at tiny sizes."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_checks, gpu_pages, gpu_session
from benchmarks.gpu_predicted import DECIDE, PREDICTED, TARGETS, compared, verdicts
from benchmarks.gpu_session import Report, Row
from gmml_aug.backends.triton import lower as fused_steps

ROOT = Path(__file__).resolve().parents[2]
CPU, MACHINE = torch.device("cpu"), {"gpu": "imagined", "kernels": "one", "date": "2026-11-27"}


@pytest.mark.slow
@pytest.mark.skipif(not fused_steps.has_triton(), reason="needs triton")
def test_every_part_of_it_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu_session", str(tmp_path / "all.json"), "--rehearse"]
    command += ["--pieces", "kernels", "beside", "sizes"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    found = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert list(found)[:3] == ["about", "to decide", "targets"]
    assert found.pop("about")["rehearsal"]
    assert found.pop("to decide") == DECIDE
    assert set(found.pop("targets")) == set(TARGETS) - {"vit_small_patch16_224"}  # another model is rehearsed
    assert set(found) == {row.label for row in gpu_session.rows(CPU, 1, math.inf, rehearse=True)}
    assert not [part for part in found.values() if "error" in part or "left out" in part]
    (training,) = (part for part in found.values() if "share" in part)
    assert set(training["share"]) == {"torch", "fused", "from bytes, torch", "from bytes, fused"}
    assert all(row["differs in"] == 0 for row in found["graphs"].values())
    judged = {label: row["passed"] for label, row in found.items() if "passed" in row}
    assert len(judged) == 5  # equality in three dtypes, and two tools
    assert all(judged.values()), found
    assert all(row["equal"] for row in found["tiles, float32"].values() if isinstance(row, dict))
    assert "not reached" not in found["tiles, float32"]
    assert set(found["stages, uint8"]["beside the prediction, us"]) == set(PREDICTED)
    assert {row["peer"] for row in found["the release's loop"]["rows"]} >= {"gmml", "the release's rule, loop"}


def said(text: Any) -> Callable[[], Any]:
    """A part that has been run."""
    return lambda: text


def failing() -> Any:
    """A part that fails."""
    raise RuntimeError("out of memory")


def session(monkeypatch: pytest.MonkeyPatch, report: Report, *rows: Row, only: list[str] | None = None) -> list[str]:
    """Run these parts; the labels that the file has then, in its order."""
    monkeypatch.setattr(gpu_session, "rows", lambda *given, **options: list(rows))
    gpu_session.run("kernels", report, CPU, 1, rehearse=False, only=only)
    return list(json.loads(report.file.read_text(encoding="utf-8")))


def test_what_is_there_is_not_measured_again_unless_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.json"
    one, two = Row("one", "kernels", "call", 1.0, said({"ms": 1})), Row("two", "kernels", "tiles", 1.0, failing)
    late, other = Row("late", "kernels", "peers", 1e9, said({})), Row("other", "beside", "call", 1.0, said({}))
    assert session(monkeypatch, Report(file, MACHINE), one, two, late, other) == [
        "about", "to decide", "targets", "one", "two", "late",
    ]  # fmt: skip
    report = Report(file, {**MACHINE, "date": "2026-11-30"})
    assert report.about == MACHINE
    assert [report.has(label) for label in ("one", "two", "late", "other")] == [True, False, False, False]
    assert "out of memory" in report.rows["two"]["error"]
    assert "run this again" in report.rows["late"]["left out"]

    again = Row("one", "kernels", "call", 1.0, said({"ms": 2}))
    session(monkeypatch, report, again, Row("two", "kernels", "tiles", 1.0, said({"ms": 3})))
    assert [report.rows[label] for label in ("one", "two")] == [{"ms": 1}, {"ms": 3}]
    session(monkeypatch, report, again, only=["call"])
    assert report.rows["one"] == {"ms": 2}
    assert json.loads(file.read_text(encoding="utf-8"))["two"] == {"ms": 3}


def test_what_was_measured_stays_where_time_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = Report(tmp_path / "report.json", MACHINE)
    session(monkeypatch, report, Row("one", "kernels", "call", 1.0, said({"ms": 1})))
    session(monkeypatch, report, Row("one", "kernels", "call", 1e9, said({"ms": 2})), only=["call"])
    assert report.rows["one"] == {"ms": 1}


def test_a_report_of_other_kernels_is_kept_beside(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    for number, kernels in enumerate(("one", "two", "three")):
        Report(file, {**MACHINE, "kernels": kernels}).put("call", number)
    kept = {one.name: json.loads(one.read_text(encoding="utf-8"))["call"] for one in tmp_path.glob("*.json")}
    assert kept == {"report.json": 2, "report-2026-11-27.json": 0, "report-2026-11-27-2.json": 1}


def test_the_pieces_end_in_time_and_every_part_says_what_it_decides() -> None:
    planned = gpu_session.rows(CPU, 20, 0.0, rehearse=False)
    assert len({row.label for row in planned}) == len(planned)
    assert {row.part for row in planned} == set(DECIDE)
    seconds: dict[str, float] = defaultdict(float)
    for row in planned:
        seconds[row.piece] += row.seconds
    assert set(seconds) == set(gpu_session.PIECES)
    assert max(seconds.values()) <= gpu_session.LIMIT < 300


def test_the_predictions_are_those_of_the_docs() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8").split("before any of this had run there")[1]
    lines = {"float32": "| float32 |", "bfloat16": "| bfloat16 |", "uint8": "| bytes to bfloat16, both batches |"}
    for kind, begin in lines.items():
        (line,) = (line for line in text.splitlines() if line.startswith(begin))
        cells = [cell.split("(")[0] for cell in line.strip("|").split("|")[1:5]]
        for stage, cell in zip(("plan", "paint", "blur", "call"), cells, strict=True):
            numbers = [float(number) for number in re.findall(r"\d+", cell)]
            assert (numbers[0], numbers[-1]) == PREDICTED[stage][kind], (kind, stage)


def test_a_time_is_compared_with_its_prediction() -> None:
    assert compared("plan", "float32", 0.02)["says"] == "as predicted"
    assert compared("paint", "float32", 0.104)["says"] == "as predicted"
    assert compared("blur", "bfloat16", 0.02)["says"] == "faster"
    slow = compared("blur", "bfloat16", 0.0561)
    assert slow["says"].startswith("slower: look at the programs")
    assert (slow["measured"], slow["predicted"]) == (56.1, [30.0, 50.0])


def test_targets_are_judged_by_what_there_is() -> None:
    call = {"times": 2.0, "host": 0.2, "extra memory": 0.11}
    report = {
        "silence": {"call": "waits for nothing"}, "call, float32": call,
        "call, bfloat16": {**call, "host": 0.4, "extra memory": 0.2},
        "call, uint8": {**call, "times": 2.0, "without the clean batch": {"times": 1.1}},
        "vit_small_patch16_224": {"share": {"fused": 0.0025}}, "tiles, float32": {"error": "RuntimeError"},
    }  # fmt: skip
    found = {name: row["says"] for name, row in verdicts(report).items()}
    assert found == {
        "call, float32": "the floor", "call, bfloat16": "the goal", "call, uint8": "the goal",
        "call, uint8, without the clean batch": "the goal", "host a call": "missed", "extra memory": "missed",
        "vit_small_patch16_224": "the floor",
    }  # fmt: skip
    assert verdicts(report)["extra memory"]["measured"] == 0.2
    assert verdicts({"call, float32": {"error": "none"}}) == {}


def test_the_sanitizer_is_asked_and_its_answer_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "compute-sanitizer"
    tool.write_text('#!/bin/sh\necho "$@"\necho "========= RACECHECK SUMMARY: 2 hazards displayed"\nexit 9\n', encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    row = gpu_checks.watched("racecheck", torch.device("cuda"), 60.0)
    assert not row["passed"]
    assert row["summary"] == "RACECHECK SUMMARY: 2 hazards displayed"
    assert row["output"].startswith(f"--tool racecheck --error-exitcode 9 {sys.executable} -m benchmarks.gpu_checks\n")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setattr(gpu_checks, "_PLACES", (str(tmp_path / "nowhere"),))
    assert "no compute-sanitizer" in gpu_checks.watched("memcheck", torch.device("cuda"), 60.0)["error"]


def test_a_command_that_does_not_end_is_ended() -> None:
    row = gpu_checks.ended([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], 3.0)
    assert row["code"] is None
    assert "not done after 3 s" in row["error"]
    assert row["output"] == "begun\n"


def test_the_pages_are_drawn_from_a_report_with_the_new_parts() -> None:
    report = json.loads(gpu_session.RESULTS.read_text(encoding="utf-8"))
    more = {
        "to decide": dict(DECIDE),
        "targets": {},
        "call, float32": {"images": "", "copy": {}, "call": {}},
        "peers": {"rows": []},
    }
    assert gpu_pages.tables({**report, **more, "1 x 3 x 8 x 8, float32": {"error": "out of memory"}}) == gpu_pages.tables(report)
