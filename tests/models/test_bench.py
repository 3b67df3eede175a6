"""``gmml bench``: the report is what its contract says, somebody's own contender takes part, and a failure is told, not fatal."""

from __future__ import annotations

import json
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import figures, gpu_measures, gpu_pages, gpu_session, pages, throughput
from benchmarks.timing import alternate
from gmml_models.bench import timing
from gmml_models.bench.peers import PEERS, own_peer, present
from gmml_models.bench.report import FULL, markdown, run
from gmml_models.bench.report import QUICK as QUICK_CASES
from gmml_models.bench.timing import CLONE, COPY, DTYPES, Call, Case, Effort, Peer, Times, measure
from gmml_models.cli.bench import Bench
from gmml_models.errors import UsageError
from tests.models.test_device_clock import ImaginedStream
from tests.models.test_device_clock import call as imagined
from tests.test_results import wrong_with

TINY = "2x3x24x32"
QUICK = Effort(rounds=2, least=1, seconds=0.01)
LIMITS = [peer for peer in PEERS if peer.group == "limit"]
ALWAYS = {"case", "shape", "dtype", "peer", "group", "does", "error"}
IF_IT_RAN = {
    *("extra_memory", "synchronisations", "wall_ms", "device_ms", "images_per_second", "times_copy", "times_clone"),
    *("bytes_per_second", "extra_memory_in_batches", "bandwidth_share"),
}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module of somebody's own in the current folder."""
    (tmp_path / "my_bench_peer.py").write_text(
        'def halve(images):\n    """Half of it.\n\n    Slowly.\n    """\n    return images / 2\n\n'
        'def bad(images):\n    raise RuntimeError("no | luck")\n\nnumber = 3\n',
        encoding="utf-8",
    )
    (tmp_path / "my_broken_peer.py").write_text("1 / 0\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def _theirs(images: Tensor) -> Call:
    return images.abs


def ran(capsys: pytest.CaptureFixture[str], folder: Path, **options: Any) -> tuple[int, dict[str, Any], str, str]:
    file = folder / "report.json"
    code = Bench(output=file, device="cpu", rounds=2, **{"shape": (TINY,), "only": ("gmml",), **options}).run()
    said = capsys.readouterr()
    return code, json.loads(file.read_text(encoding="utf-8")), said.out, said.err


def test_the_report_holds_what_its_contract_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, out, _ = ran(capsys, tmp_path)
    assert code == 0
    assert report["schema"] == 1
    assert set(report) == {"schema", "machine", "memory_bandwidth", "rows", "absent", "cut", "memory_limit_gb"}
    assert {"cpu", "threads", "allocator", "versions", "date", "device"} <= set(report["machine"])
    assert wrong_with(report) == []
    assert report["machine"]["threads"] == 1
    assert [row["peer"] for row in report["rows"]] == [COPY, CLONE, "gmml"]
    for row in report["rows"]:
        assert set(row) == ALWAYS | IF_IT_RAN
        assert set(row["wall_ms"]) == {"minimum", "median", "quartiles", "runs"}
        assert row["wall_ms"] == row["device_ms"]  # on a CPU
        assert row["images_per_second"] == pytest.approx(2e3 / row["wall_ms"]["minimum"], rel=1e-4)  # six digits are written
        assert row["synchronisations"] is None
    copy, clone, gmml = report["rows"]
    assert copy["times_copy"] == clone["times_clone"] == 1
    assert gmml["times_clone"] == pytest.approx(gmml["device_ms"]["minimum"] / clone["device_ms"]["minimum"], rel=1e-4)
    assert (copy["extra_memory_in_batches"], clone["extra_memory_in_batches"]) == (0, 1)
    for name in (COPY, CLONE, "**gmml**", "x copy"):
        assert name in out


def test_somebodys_own_contender_takes_part(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, out, _ = ran(capsys, mine, peer=("my_bench_peer:halve",))
    assert code == 0
    row = report["rows"][-1]
    assert (row["peer"], row["does"], row["group"]) == ("my_bench_peer:halve", "Half of it.", "yours")
    assert row["extra_memory_in_batches"] == pytest.approx(1, abs=0.01)  # a number, 2, is a tensor for a moment
    assert "**my_bench_peer:halve**" in out


def test_a_contender_that_fails_is_told_and_the_rest_is_measured(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, report, out, err = ran(capsys, mine, peer=("my_bench_peer:bad", "my_bench_peer:halve"))
    assert code == 1
    rows = {row["peer"]: row for row in report["rows"]}
    assert rows["my_bench_peer:bad"]["error"] == "RuntimeError: no | luck"
    assert set(rows["my_bench_peer:bad"]) == ALWAYS
    assert rows["my_bench_peer:halve"]["error"] is None
    assert "my_bench_peer:bad on 2x3x24x32 float32 failed: RuntimeError" in err
    assert r"no \| luck" in out


def test_one_that_fails_later_is_told_too() -> None:
    calls = iter(range(100))

    def sometimes(images: Tensor) -> Call:
        def call() -> None:
            if next(calls) > 2:
                raise ValueError("tired")

        return call

    rows = measure(Case((1, 1, 4, 4)), [*LIMITS, Peer("sometimes", "", sometimes)], effort=QUICK)
    assert [row["error"] for row in rows] == [None, None, "ValueError: tired"]
    assert "device_ms" not in rows[-1]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"peer": ("halve",)}, "is not of the form MODULE:FUNCTION"),
        ({"peer": ("no_such_module:halve",)}, "cannot be imported"),
        ({"peer": ("my_broken_peer:halve",)}, "ZeroDivisionError"),
        ({"peer": ("my_bench_peer:nothing",)}, "has no function nothing"),
        ({"peer": ("my_bench_peer:number",)}, "has no function number"),
        ({"shape": ("3x224",)}, "is not of the form B x C x sizes"),
        ({"shape": ("0x3x8x8",)}, "is not of the form B x C x sizes"),
        ({"shape": ("axbxc",)}, "is not of the form B x C x sizes"),
        ({"only": ("nobody*",)}, "no contender matches nobody"),
        ({"threads": 0}, "must be positive"),
        ({"rounds": 0}, "must be positive"),
        ({"memory": 0.0}, "must be positive"),
        ({"shape": ("64x3x224x224",), "memory": 0.1}, "would need more than 0.1 GB"),
        ({"output": Path("nowhere/report.json")}, "does not exist"),
    ],
)
def test_bad_input_is_refused(mine: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Bench(**{"device": "cpu", "shape": (TINY,), "only": ("gmml",), **options}).run()


def test_the_threads_are_given_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    _, report, _, _ = ran(capsys, tmp_path, threads=before + 1)
    assert (report["machine"]["threads"], torch.get_num_threads()) == (before + 1, before)


@pytest.mark.parametrize("shape", [(2, 3, 64, 64), (1, 3, 64, 64), (2, 1, 32, 64), (2, 1, 16, 16, 16)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_ours_run_on_every_kind_of_batch(shape: tuple[int, ...], dtype: str) -> None:
    ours = [peer for peer in PEERS if peer.group in ("limit", "ours")]
    rows = measure(Case(shape, dtype), ours, effort=QUICK)
    failed = {row["peer"] for row in rows if row["error"]}
    assert failed <= ({"Alien", "noise and alien, 3-D"} if shape[0] == 1 else set())  # no other image to take from
    assert len(rows) > 3


def test_what_is_not_installed_is_absent() -> None:
    here, absent = present([*LIMITS, Peer("theirs", "", lambda images: images.clone, package="no_such_package")])
    assert [peer.name for peer in here] == [COPY, CLONE]
    assert absent == {"theirs": "no_such_package is not installed"}


@pytest.mark.filterwarnings("ignore")  # theirs
def test_the_peers_that_a_project_depends_on_run() -> None:
    theirs = [peer for peer in PEERS if peer.package in ("timm", "torchvision", "kornia")]
    rows = measure(Case((2, 3, 32, 32)), theirs, effort=QUICK)
    assert len(rows) == 9
    assert [row["error"] for row in rows] == [None] * 9


def test_the_tables_name_what_was_cut_and_who_is_absent() -> None:
    large = Case((4096, 3, 1024, 1024))
    report = run([Case((1, 1, 8, 8)), Case((2, 1, 8)), large], LIMITS, absent={"x": "y is not installed"}, effort=QUICK)
    assert report["cut"] == [large.name]
    text = markdown(report)
    for words in (
        "Multiples of the copy",
        "Absent: x (y is not installed).",
        "Cut at 2 GB: 4096x3x1024x1024 float32.",
        "| clone()",
    ):
        assert words in text


def test_the_grids_hold_what_is_promised() -> None:
    assert set(QUICK_CASES) <= set(FULL)
    assert {case.dtype for case in QUICK_CASES} == {case.dtype for case in FULL} == set(DTYPES)
    assert {case.shape[-1] for case in FULL} >= {32, 96, 224, 512, 1024}
    assert {case.shape[0] for case in FULL} >= {1, 4096}


def test_times_are_those_of_statistics() -> None:
    assert Times.of([3.0]) == Times(3.0, 3.0, 0.0, 1)
    assert Times.of([4.0, 1.0, 2.0, 3.0]) == Times(1.0, 2.5, 2.5, 4)
    effort = Effort(rounds=5, least=3, seconds=1.0)
    assert [effort.call(runs, spent) for runs, spent in ((0, 9.0), (2, 9.0), (3, 9.0), (3, 0.5), (5, 0.5))] == [
        *(True, True, False, True, False)
    ]


def test_an_own_peer_without_words_is_said_to_have_none() -> None:
    assert own_peer("math:floor").does == (math.floor.__doc__ or "").partition("\n")[0]
    assert own_peer("json:dumps").group == "yours"


def test_the_stages_sum_to_the_whole_and_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    cases = [Case((2, 3, 224, 224))]
    report = run(cases, LIMITS, absent={}, effort=QUICK)
    report["stages_ms"] = parts = throughput.stages(Case((2, 3, 32, 32)), effort=QUICK)
    assert list(parts) == ["plan", "copy", "Noise", "Alien", "Grey", "Blur", "together", "measured whole"]
    assert all(value >= 0 for value in parts.values())
    assert sum(parts.values()) - parts["measured whole"] >= parts["measured whole"] - 1e-9
    drawn = figures.draw(report, tmp_path / "drawn")
    assert [file.name for file in drawn] == ["by_batch.png", "by_size.png", "copies.png", "stages.png"]
    assert all(file.stat().st_size > 1000 for file in drawn)


def test_a_ratio_that_could_not_be_taken_is_a_dash() -> None:
    one = {"measured": 2.0, "target": "at most", "floor": 4.0, "goal": 2.5}
    own, kept = {"ratios": {"a / b": one}}, {"ratios": {"a / b": {**one, "measured": None}}}
    assert throughput.ratio_lines(own, kept)[-1] == "| a / b | 2.00 | - | at most 4 | 2.5 |"
    assert throughput.ratio_lines(own, None)[-1] == "| a / b | 2.00 | - | at most 4 | 2.5 |"


def test_the_release_s_rule_says_what_it_cannot_do() -> None:
    rows = measure(Case((2, 3, 16, 16), "uint8"), [throughput.RELEASE], effort=QUICK)
    assert "bytes cannot hold" in rows[0]["error"]
    assert measure(Case((2, 3, 16, 16)), [throughput.RELEASE], effort=QUICK)[0]["error"] is None


def test_the_cost_of_a_pixel_is_that_of_64_images_at_least_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, int]] = []

    def counted(contenders: dict[Any, Call], *, calls: dict[Any, int], **_: Any) -> dict[Any, Times]:
        for call in contenders.values():
            call()
        seen.extend(calls.items())
        return {about: Times.of([float(2 + about[1]), 100.0]) for about in contenders}  # as many ms as the visit's number, and 2

    monkeypatch.setattr(throughput, "alternate", counted)
    found = throughput.cost_per_pixel(memory=0.0075)
    assert list(found) == ["64x3x32x32", "16x3x96x96", "4x3x224x224"]
    assert [(shape[0], visit) for (shape, visit), _ in seen] == [
        (64, 0),
        *((16, v) for v in range(4)),
        *((4, v) for v in range(16)),
    ]
    assert all(often * math.prod(shape) > 2 << 20 for (shape, _), often in seen)  # small batches are called more often
    assert [one["minimum"] for one in found.values()] == [2.0, 3.5, 9.5]  # the mean over the visits
    assert found["16x3x96x96"]["ns_per_pixel"] == pytest.approx(3.5e6 / (16 * 96 * 96))


def test_contenders_that_are_short_are_called_more_often_a_round() -> None:
    called: list[str] = []
    contenders = {name: partial(called.append, name) for name in "ab"}
    ticks = iter(range(1000))
    times = alternate(contenders, rounds=2, calls={"a": 3, "b": 1}, clock=lambda: float(next(ticks)))
    assert "".join(called) == "ab" + "aaab" * 2
    assert times["a"].minimum == times["b"].median == 1e3


def test_readme_and_docs_show_what_was_measured(tmp_path: Path) -> None:
    report = json.loads((throughput.RESULTS / "throughput.json").read_text(encoding="utf-8"))
    copies = [tmp_path / "readme.md", tmp_path / "docs.md"]
    for page, copy in zip((pages.README, pages.PERFORMANCE), copies, strict=True):
        copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    pages.put_speed(report, *copies)
    for page, copy in zip((pages.README, pages.PERFORMANCE), copies, strict=True):
        assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")
    assert pages.speed(report, pages.SHORT).count("\n| ") == len(pages.SHORT) + 1  # nobody is left out
    with pytest.raises(UsageError, match="lacks the lines"):
        pages.put_speed(report, tmp_path / "none.md", copies[1])


def test_docs_show_what_a_gpu_measured(tmp_path: Path) -> None:
    copy, page = tmp_path / "docs.md", pages.PERFORMANCE
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    gpu_pages.put_gpu(json.loads(gpu_session.RESULTS.read_text(encoding="utf-8")), copy)
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_a_contender_that_takes_long_is_measured_on_the_first_batch_alone() -> None:
    cases, copy = [Case((2, 3, 16, 16)), Case((3, 3, 16, 16))], next(peer for peer in PEERS if peer.name == COPY)
    report = run(cases, [copy, throughput.LONG], absent={}, effort=QUICK)
    assert [(row["case"], row["peer"]) for row in report["rows"]] == [
        (cases[0].name, COPY), (cases[0].name, throughput.LOOP), (cases[1].name, COPY),
    ]  # fmt: skip


def imagined_gpu(monkeypatch: pytest.MonkeyPatch) -> ImaginedStream:
    """Let a bench believe that it has a GPU, which is only imagined."""
    stream = ImaginedStream()
    monkeypatch.setattr(torch.cuda, "synchronize", stream.finish)
    for module in (timing, gpu_measures):
        monkeypatch.setattr(module, "CudaStream", lambda: stream)
    monkeypatch.setattr(Case, "batch", lambda case, device: torch.zeros(case.shape))
    monkeypatch.setattr(timing, "peak_memory", lambda call, device: 0)
    monkeypatch.setattr(timing, "synchronisations", lambda call, device: 0)
    return stream


def test_a_slow_host_is_not_published_as_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = imagined_gpu(monkeypatch)
    work = {
        COPY: imagined(stream, launches=1, host=0.01, device=0.1),
        "many launches": imagined(stream, launches=30, host=0.05, device=0.01),
        "waits": imagined(stream, launches=3, host=0.2, device=0.1, waits=True),
    }

    def peer(name: str) -> Peer:
        return Peer(name, "", lambda images: work[name])

    copy, many, waits = measure(Case((2, 3, 4, 4)), [peer(name) for name in work], device="cuda", effort=Effort(rounds=6))
    assert many["device_ms"]["median"] == pytest.approx(0.3)
    assert many["times_copy"] == pytest.approx(3.0)
    assert many["host_ms"] == pytest.approx(1.5)
    assert [row["host_was_the_clock"] for row in (copy, many, waits)] == [False, False, True]
    assert waits["late"] == waits["device_ms"]["runs"] == 6
    told = gpu_measures.take_time(work["many launches"], torch.device("cuda"), 5).told
    assert told["median"] == pytest.approx(0.3)
    assert told["host"] == pytest.approx(1.5)
    assert gpu_measures.HOST not in told
    assert gpu_measures.take_time(work["waits"], torch.device("cuda"), 5).told[gpu_measures.HOST]


def test_what_was_the_host_s_time_is_struck_out() -> None:
    report = json.loads(gpu_session.RESULTS.read_text(encoding="utf-8"))
    drawn = gpu_pages.tables(report)
    assert "| ~~0.98~~ | ~~82.5~~ |" in drawn
    assert "Struck out: the host" in drawn
    for row in report.values():
        for one in row.values() if isinstance(row, dict) else ():
            if isinstance(one, dict):
                one.pop(gpu_measures.HOST, None)
    assert "~~" not in gpu_pages.tables(report)
    assert "Struck out" not in gpu_pages.tables(report)
