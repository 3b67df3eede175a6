"""The runner of the papers' claims: what it declares, shares, resumes, judges and draws."""

from __future__ import annotations

import fcntl
import gzip
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.claims import __main__ as command_line
from benchmarks.claims import parts, table, verdict
from benchmarks.claims.gpu_rows import GPU_GRID, GPU_TUNED
from benchmarks.claims.images import open_images
from benchmarks.claims.parts import Place, named
from benchmarks.claims.repeat import repeat
from benchmarks.claims.row import Claim, Row, beats, jobs
from benchmarks.claims.rows import GRID, IMAGES, ROWS, TUNED
from benchmarks.claims.run import Task, add, key, read, run, same, settings
from gmml_models.errors import UsageError
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig, check
from gmml_models.recipes.corruptions import corruption_from
from gmml_models.recipes.pretraining import build_objective
from tests.models.data_files import write_classes

BY_NAME = {row.name: row for row in ROWS}
TINY: dict[str, Any] = {
    "data": "caltech101_sub",
    "model": "vit_micro_patch4_32",
    "img_size": 16,
    "patch_size": 8,
    "batch_size": 8,
    "epochs": 2,
    "cpu": True,
    "workers": 0,
    "resident": True,
}
PLAIN: dict[str, Any] = {"auto_augment": None, "erasing": 0.0, "pool": "mean", "test_every": 1_000_000}
SCRATCH = Row(name="tiny/scratch", what="scratch", stage=1, finetune=FinetuneConfig(**TINY, **PLAIN))
BEGIN, END = "<!-- claims: begin (drawn by make claims) -->", "<!-- claims: end -->"
GMML = replace(SCRATCH, name="tiny/gmml", pretrain=PretrainConfig(**TINY, views=1, pictures_every=0))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of pictures, and digits."""
    folder = tmp_path_factory.mktemp("packs")
    write_classes(folder / "caltech101_sub" / "train", {"a": 12, "b": 11, "c": 10})
    write_classes(folder / "caltech101_sub" / "test", {"a": 4, "b": 4, "c": 4}, first=100)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    (folder / "mnist_t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(bytes(16) + pixels.tobytes()))
    (folder / "mnist_t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(bytes(8) + bytes(number % 10 for number in range(30))))
    return folder


class Hasty(Place):
    """Time for one step."""

    def minutes_left(self) -> float:
        """Hardly any."""
        return 1e-9


def silent(words: str) -> None:
    """Nobody is told."""


def job_of(row: Row, seed: int, top1: float) -> dict[str, dict[str, Any]]:
    machine = dict.fromkeys(("cpu", "gpu", "system", "date", "python", "torch", "timm", "torchvision", "scikit-learn", "gmml"), "x")
    numbers = {"top1": top1, "knn": 5.0, "linear": 6.0, "seconds": 60.0, "seed": seed}
    return {key(row, seed): {**numbers, "settings": settings(row), "machine": {**machine, "threads": 1}}}


def test_the_rows_can_be_run_and_their_claims_be_judged() -> None:
    assert len(BY_NAME) == len(ROWS)
    for row in ROWS:
        for config in (row.pretrain, row.finetune):
            if config is not None:
                check(config)
                assert config.data in IMAGES
        if row.pretrain is not None:
            corruption_from(row.pretrain.corruption or "gmml", ((0.5,) * 3, (0.2,) * 3))
            if row.name in ("kinds/none", "fusion/all", "mc_ssl/both"):
                blocks = build_objective(row.pretrain).autoencoder.blocks
                assert blocks == {"kinds/none": (3, 4, 5, 6), "mc_ssl/both": (6,)}.get(row.name, row.pretrain.blocks)
        for claim in row.claims:
            assert claim.against in BY_NAME
            assert claim.source


def test_all_rows_of_a_group_fine_tune_alike() -> None:
    for group in ("kinds", "masks", "extent", "fusion", "mc_ssl", "transfer"):
        tuned = {str(replace(row.finetune, precision="bf16")) for row in ROWS if row.group == group}
        assert tuned == {str(BY_NAME["control/scratch"].finetune)}


def test_rows_are_compared_in_the_same_numbers_unless_these_are_the_question() -> None:
    def formats(row: Row) -> set[str]:
        return {config.precision for config in (row.pretrain, row.finetune) if config is not None}

    for row in ROWS:
        assert len(formats(row)) == 1
        for claim in row.claims:
            asked = claim.words == "float32 instead of bfloat16"
            assert (formats(row) == formats(BY_NAME[claim.against])) is not asked


@pytest.mark.parametrize(("one", "other"), [("extent/0.7", "kinds/comb1"), ("fusion/upper-half", "masks/gmml")])
def test_rows_that_ask_for_the_same_share_its_folder(one: str, other: str) -> None:
    first, second = BY_NAME[one].pretrain, BY_NAME[other].pretrain
    assert first is not None
    assert second is not None
    assert named(first) == named(second)
    assert named(first) == named(replace(first, keep=7, out=Path("elsewhere")))
    assert len({named(first), named(replace(first, seed=1)), named(replace(first, epochs=1)), named(replace(first, lr=1e-9))}) == 4
    assert named(BY_NAME[one].finetune, after="a") != named(BY_NAME[one].finetune, after="b")


def test_every_other_row_has_a_folder_of_its_own() -> None:
    shared = {"extent/0.7", "fusion/upper-half"}
    rows = [row for row in ROWS if row.name not in shared]
    assert len({named(row.finetune, after=named(row.pretrain) if row.pretrain else "") for row in rows}) == len(rows)


def test_the_first_seeds_of_all_ablations_come_before_most_repeats() -> None:
    order = [key(row, seed) for row, seed in jobs(ROWS)]
    assert order.index("main/caltech-gmml seed 0") < order.index("kinds/comb1 seed 0") < order.index("main/caltech-gmml seed 1")
    assert len(order) == len(set(order)) == sum(len(row.seeds) for row in ROWS)


@pytest.mark.parametrize(("prefix", "pairs", "tuned"), [("tune/", GRID, TUNED), ("gpu/tune-", GPU_GRID, GPU_TUNED)])
def test_what_was_tuned_is_what_the_grid_chose(
    prefix: str, pairs: tuple[tuple[float, bool], ...], tuned: Mapping[str, Any]
) -> None:
    results, rows = read(command_line.RESULTS), [one for one in ROWS if one.name.startswith(prefix)]
    grid = {pair: verdict.numbers(row, results) for pair, row in zip(pairs, rows, strict=True)}
    if None in grid.values():
        pytest.skip("the grid was not run")
    best = max(grid, key=lambda pair: grid[pair].mean)  # type: ignore[union-attr]  # none is None
    assert best == (tuned["lr"], tuned["mixed"])


@pytest.mark.parametrize(("page", "write"), [(command_line.PAGE, table.write_into), (command_line.README, table.write_short)])
def test_the_pages_show_what_the_json_holds(page: Path, write: Callable[..., None], tmp_path: Path) -> None:
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text(encoding="utf-8"), encoding="utf-8")
    write(copy, read(command_line.RESULTS))
    assert copy.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_held_out_images_are_training_images_that_are_not_learnt_from(data: Path) -> None:
    held, whole = open_images("caltech101_sub/held", data), open_images("caltech101_sub", data)
    learnt, measured = ({source.name(number) for number in range(len(source))} for source in held)
    assert not learnt & measured
    assert learnt | measured == {whole.train.name(number) for number in range(len(whole.train))}
    assert [held.test.labels().count(label) for label in range(3)] == [2, 2, 2]
    few, some = open_images("caltech101_sub/4", data), open_images("caltech101_sub/6/held", data)
    assert [few.train.labels().count(label) for label in range(3)] == [4, 4, 4]
    assert [len(some.train), len(some.test)] == [15, 3]  # the fifth of the first six of each class is held out
    assert len(few.test) == len(whole.test) == 12


def test_digits_are_grey_in_three_channels(data: Path) -> None:
    digits = open_images("mnist/20", data)
    image, label = digits.train[3]
    assert (len(digits.train), len(digits.test), tuple(image.shape), label) == (20, 10, (3, 28, 28), 3)
    assert (image[0] == image[2]).all()


def test_a_missing_pack_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"flowers102_part/train.*Unpack"):
        open_images("flowers102_part/15", tmp_path)
    with pytest.raises(UsageError, match="mnist_t10k-images"):
        open_images("mnist/20", tmp_path)


def test_a_job_goes_on_where_it_was_stopped_is_done_once_and_gives_the_same_numbers_from_nothing(
    data: Path, tmp_path: Path
) -> None:
    results, place, drawn = tmp_path / "claims.json", Place(data=data, runs=tmp_path / "runs"), []
    task = Task(jobs=[(GMML, 0)], place=place, results=results, tell=silent, after=lambda: drawn.append(1))
    measured = ("top1", "knn", "linear", "loss")
    assert not run(replace(task, place=replace(place, until=time.monotonic())))  # no time at all
    hasty = Hasty(data=data, runs=place.runs)
    for _ in range(9):  # eight steps of pretraining, then the first ones of fine-tuning
        assert not run(replace(task, place=hasty))
    told = [(path.name[:5], json.loads(path.joinpath("part.json").read_text())) for path in sorted(place.runs.glob("[a-z]*ep-*"))]
    assert [(name, told.get("finished", False)) for name, told in told] == [("gmml-", True), ("tuned", False)]
    assert read(results) == {}
    next(place.runs.glob("tuned*/part.json")).write_text('{"seconds": 1000.0}')  # the calls before took long
    assert run(task)
    found, written = read(results)["tiny/gmml seed 0"], results.stat().st_mtime_ns
    assert found["loss"] > 0
    assert found["seconds"] > found["parts"]["finetune"]["seconds"] > 1000
    assert same(GMML, found)
    assert not same(replace(GMML, finetune=replace(GMML.finetune, lr=1e-3)), found)
    assert run(task)
    assert (results.stat().st_mtime_ns, drawn) == (written, [1])
    assert repeat(task)
    again = read(results)["tiny/gmml seed 0"]
    assert again["again"]["same"]
    assert sorted(path.name for path in (place.runs / "again").glob("[a-z]*")) == sorted(
        part["folder"] for part in found["parts"].values()
    )
    assert [again["again"][one] for one in measured] == [found[one] for one in measured]


def test_a_row_from_scratch_has_the_features_of_an_untrained_encoder(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "claims.json"
    assert run(Task(jobs=[(SCRATCH, 0)], place=Place(data=data, runs=tmp_path / "runs"), results=results, tell=silent))
    found = read(results)["tiny/scratch seed 0"]
    assert found["loss"] is None
    assert list(found["parts"]) == ["finetune", "probe"]
    assert (tmp_path / "runs" / found["parts"]["probe"]["folder"] / "untrained" / "config.json").exists()


def test_what_another_process_is_at_comes_later(data: Path, tmp_path: Path) -> None:
    place = Place(data=data, runs=tmp_path)
    config = replace(SCRATCH.finetune, seed=0)
    with (tmp_path / f".{named(config)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(parts.TakenError, match="scratch-caltech101_sub"):
            parts.finetuned(config, place)


@pytest.mark.parametrize(
    ("expected", "ours", "theirs", "words"),
    [
        ("above", (30, 31, 32), (20, 21, 22), "held"),
        ("above", (20, 21, 22), (30, 31, 32), "did not hold"),
        ("below", (20, 21, 22), (30, 31, 32), "held"),
        ("above", (20, 21, 22), (19, 20.9, 22), "undecided"),
        ("equal", (20, 21, 22), (19, 20.9, 22), "held"),
        ("equal", (20, 21, 22), (30, 31, 32), "did not hold"),
        (None, (20, 21, 22), (30, 31, 32), "lower"),
        ("above", (40,), (20, 21, 22), "held; one seed, ±2.8"),
        ("above", (22.5,), (20, 21, 22), "undecided; one seed, ±2.8"),
        ("above", (), (20, 21, 22), "not run"),
    ],
)
def test_a_verdict_needs_more_than_the_spread(
    expected: Any, ours: tuple[float, ...], theirs: tuple[float, ...], words: str
) -> None:
    claim = Claim(words="w", paper="p", source="s", against="tiny/scratch", expected=expected)
    scratch = replace(SCRATCH, seeds=(0, 1, 2))
    row = replace(GMML, seeds=tuple(range(max(len(ours), 1))), claims=(claim,))
    results: dict[str, Any] = {}
    for one, values in ((row, ours), (scratch, theirs)):
        for seed, value in enumerate(values):
            results |= job_of(one, seed, value)
    assert verdict.judge(row, claim, results, (row, scratch))[1] == words


def test_one_seed_alone_gives_no_verdict() -> None:
    claim = Claim(words="w", paper="p", source="s", against="tiny/scratch", expected="above")
    results = {**job_of(GMML, 0, 40.0), **job_of(SCRATCH, 0, 20.0)}
    assert verdict.judge(GMML, claim, results, (GMML, SCRATCH)) == ("+20.0", "one seed, and no spread is known yet")


def test_a_job_of_which_a_part_was_measured_counts_and_is_done_again(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "claims.json"
    job = {**job_of(SCRATCH, 0, 20.0)["tiny/scratch seed 0"], "knn": None, "linear": None}
    assert verdict.numbers(SCRATCH, {"tiny/scratch seed 0": job}) == verdict.Numbers((20.0,))
    assert verdict.numbers(SCRATCH, {"tiny/scratch seed 0": job}, "knn") is None
    add(results, {"tiny/scratch seed 0": job})
    assert run(Task(jobs=[(SCRATCH, 0)], place=Place(data=data, runs=tmp_path / "runs"), results=results, tell=silent))
    assert read(results)["tiny/scratch seed 0"]["knn"] is not None


def test_the_spread_of_another_model_says_nothing() -> None:
    other = replace(SCRATCH, name="other/scratch", seeds=(0, 1), finetune=replace(SCRATCH.finetune, model="vit_tiny_patch16_224"))
    alike = replace(other, finetune=SCRATCH.finetune)
    for row, wanted in ((other, None), (alike, pytest.approx(2**0.5))):
        results = {**job_of(row, 0, 10.0), **job_of(row, 1, 12.0)}
        assert verdict.single_spread(GMML, results, (GMML, SCRATCH, row)) == wanted


def test_the_table_has_mean_spread_command_and_what_was_not_run(tmp_path: Path) -> None:
    claim = Claim(words="better", paper="81.2", source="table 2", against="tiny/scratch", expected="above")
    rows = (replace(SCRATCH, seeds=(0, 1)), replace(GMML, claims=(claim,)))
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{BEGIN}\nold\n{END}\n\nMore by hand.\n", encoding="utf-8")
    table.write_into(page, {**job_of(rows[0], 0, 20.0), **job_of(rows[0], 1, 23.0)}, rows)
    text = page.read_text(encoding="utf-8")
    measured = "| `tiny/scratch` | scratch | 21.5 ± 2.1 | 5.0 ± 0.0 | 6.0 ± 0.0 | 0 1 | 2 min |"
    assert f"{measured} `make claims DATA=FOLDER ONLY=tiny/scratch` |" in text
    assert "| `tiny/gmml` | scratch | not run |" in text
    assert "| better (table 2) | 81.2 | not run (`tiny/gmml`) against 21.5 ± 2.1 (`tiny/scratch`) |  | not run |" in text
    assert "- **Not run**, 1: better (`tiny/gmml`)." in text
    assert "old" not in text
    assert text.startswith("# By hand\n")
    assert text.endswith("More by hand.\n")
    page.write_text("# No markers\n", encoding="utf-8")
    with pytest.raises(UsageError, match="lacks the lines"):
        table.write_into(page, {}, rows)


def test_the_short_table_has_the_main_claim_wherever_it_was_measured_and_counts_all() -> None:
    told = Claim(words="better", paper="p", source="s", against="tiny/scratch", expected="above")
    scratch, flowers = replace(SCRATCH, seeds=(0, 1)), replace(SCRATCH.finetune, data="flowers102_part/15")
    first = replace(GMML, seeds=(0, 1), claims=(beats(SCRATCH), told))
    second = replace(GMML, name="tiny/unknown", finetune=flowers, claims=(beats(SCRATCH),))
    results: dict[str, Any] = {}
    for row, values in ((scratch, (20.0, 21.0)), (first, (30.0, 31.0))):
        for seed, value in enumerate(values):
            results |= job_of(row, seed, value)
    lines = table.draw_short(results, (scratch, first, second)).splitlines()
    what = "1,515 photographs of Caltech-101, `vit_micro_patch4_32`, 2 + 2 epochs"
    assert lines[2:] == [
        f"| {what} | 6.0 ± 0.0 to 6.0 ± 0.0 | 20.5 ± 0.7 | 30.5 ± 0.7 | +10.0 | held |",
        "",
        "Of 3 comparisons 2 held; 1 not run.",
    ]


def test_numbers_of_other_settings_do_not_count() -> None:
    found = job_of(GMML, 0, 40.0)
    assert verdict.numbers(GMML, found) is not None
    assert verdict.numbers(replace(GMML, finetune=replace(GMML.finetune, epochs=9)), found) is None


def test_the_command_line_lists_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(tmp_path / "claims.json")
    assert command_line.main(["--list", "--results", results]) == 0
    said = capsys.readouterr().out
    assert "main/caltech-gmml seed 0" in said
    assert "gpu/gmml" not in said
    assert command_line.main(["--list", "--results", results, "--only", "gpu/*"]) == 0
    assert "gpu/gmml seed 2" in capsys.readouterr().out
    for words, told in ((["--only", "nothing/*"], "no row is named"), (["--only", "kinds/*", "--seeds", "7"], "seeds [7]")):
        assert command_line.main([*words, "--results", results]) == 2
        assert told in capsys.readouterr().err
    assert command_line.main(["--again", "--only", "kinds/zeros", "--results", results]) == 2
    assert "Leave --again out" in capsys.readouterr().err
    assert not json.loads(Path(results).read_text()) if Path(results).exists() else True
