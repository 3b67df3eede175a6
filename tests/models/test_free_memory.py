"""Free memory, as a system, its control groups and a limit of the process tell it."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from gmml_models.data import free_memory as module
from gmml_models.data.free_memory import free_memory

CPU, MIB = torch.device("cpu"), 1 << 20


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A computer with 4,000 MiB available, and the folder in which groups are made."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 9000000 kB\nMemAvailable:  {4000 * 1024} kB\n")
    monkeypatch.setattr(module, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(module, "_GROUPS", tmp_path / "groups")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tmp_path


def group(folder: Path, limit: str, used: int, cached: int, *, old: bool = False) -> None:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else ("memory.max", "memory.current")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used * MIB}\n")
    (folder / "memory.stat").write_text(f"anon 1\n{'total_' * old}inactive_file {cached * MIB}\n")


def member(system: Path, *lines: str) -> None:
    (system / "proc" / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))


def test_this_computer_says_something() -> None:
    free = free_memory(CPU)
    assert free is not None
    assert free > 64 * MIB


def test_the_least_of_system_and_groups_counts(system: Path) -> None:
    assert free_memory(CPU) == 4000 * MIB
    member(system, "0::/user/run")
    group(system / "groups" / "user" / "run", "max", 900, 0)
    assert free_memory(CPU) == 4000 * MIB
    group(system / "groups" / "user", str(2000 * MIB), 1500, 300)  # the limit of a parent is one too
    assert free_memory(CPU) == 800 * MIB, "cached files give way"
    group(system / "groups" / "user" / "run", str(500 * MIB), 600, 0)
    assert free_memory(CPU) == 0


def test_a_container_sees_its_own_group_as_the_top(system: Path) -> None:
    member(system, "0::/docker/0123")  # not mounted in it
    group(system / "groups", str(1000 * MIB), 100, 0)
    assert free_memory(CPU) == 900 * MIB


def test_groups_of_version_1(system: Path) -> None:
    member(system, "8:pids:/x", "4:memory:/x", "0::/")
    group(system / "groups" / "memory", str((1 << 63) - 4096), 100, 0, old=True)
    group(system / "groups" / "memory" / "x", str(700 * MIB), 100, 50, old=True)
    assert free_memory(CPU) == 650 * MIB


def test_the_address_space_of_a_process_may_have_a_limit(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = 100 * MIB // resource.getpagesize()
    (system / "proc" / "self" / "statm").write_text(f"{pages} 1 1 1 0 1 0\n")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (600 * MIB, resource.RLIM_INFINITY))
    assert free_memory(CPU) == 500 * MIB


def test_a_system_that_says_less(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (system / "proc" / "meminfo").unlink()
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert free_memory(CPU) == 4_096_000, "all there is, where nobody says what is available"
    monkeypatch.delattr("os.sysconf")  # Windows
    assert free_memory(CPU) is None


def test_a_gpu_has_what_is_free_and_what_torch_holds_in_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3000 * MIB, 8000 * MIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 500 * MIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200 * MIB)
    assert free_memory(torch.device("cuda", 0)) == 3300 * MIB
