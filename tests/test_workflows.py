"""The workflows of the forge: they can be read, run what the Makefile offers, and are allowed no more than they need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
TESTS = ROOT / ".github" / "workflows" / "tests.yml"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict[Any, Any]:
    yaml = pytest.importorskip("yaml")  # comes with Zensical
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def commands(path: Path) -> list[str]:
    return [step["run"] for job in read(path)["jobs"].values() for step in job["steps"] if "run" in step]


def test_every_step_is_a_command_of_the_makefile() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for path in WORKFLOWS:
        for command in commands(path):
            assert re.fullmatch(r"make \w+", command), f"{path.name}: {command}"
            assert command.removeprefix("make ") in targets, f"{path.name}: {command}"
    assert {"make test", "make docs", "make oldest", "make packages"} <= set(commands(TESTS))
    assert "make test " in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tests_begin_with_the_oldest_python_and_leave_none_out() -> None:
    least = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    pythons = read(TESTS)["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert all(isinstance(python, str) for python in pythons)  # 3.10 as a number is 3.1
    minors = [int(python.removeprefix("3.")) for python in pythons]
    assert f">=3.{minors[0]}" == least
    assert minors == list(range(minors[0], minors[-1] + 1))


def test_each_system_that_is_promised_is_tested() -> None:
    jobs = read(TESTS)["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    tested = {*matrix["system"], *(more["system"] for more in matrix["include"]), jobs["windows"]["runs-on"]}
    assert {system.partition("-")[0] for system in tested} == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_only_and_names_the_versions_of_what_it_uses(path: Path) -> None:
    held = read(path)
    assert held["permissions"] == {"contents": "read"}
    assert held[True]  # "on", which YAML takes for a truth value: when it runs
    for name, job in held["jobs"].items():
        more = job.get("permissions", {})
        assert more in ({}, {"id-token": "write"}), name
        assert not more or job["if"] == "github.event_name == 'release'", name
        assert {*job.get("needs", [])} <= set(held["jobs"])
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert "run" in step or re.fullmatch(r"[\w./-]+@(v\d[\w.]*|release/v\d)", step["uses"]), step
