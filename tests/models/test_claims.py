"""The runner of the papers' claims: what it declares, shares, resumes, judges and draws."""

from __future__ import annotations

import fcntl
import gzip
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import ModelCard

import gmml_models as gm
from benchmarks.claims import __main__ as command_line
from benchmarks.claims import curve, ship, table
from benchmarks.claims import run as runner
from benchmarks.claims.images import open_images
from benchmarks.claims.rows import BY_NAME, CLAIMS, MEASURES, ROWS, Claim, Row, jobs
from benchmarks.claims.run import Place, Results, add, key, known_jobs, named, read, run, settings, whole
from benchmarks.claims.shipping import baselines_of, data_of
from benchmarks.claims.welch import SEEDS
from benchmarks.training import speed
from gmml_models.errors import UsageError
from gmml_models.evaluate.baselines import WORDS as WORDS_OF_BASELINES
from gmml_models.recipes.config import FinetuneConfig, PretrainConfig
from gmml_models.recipes.parse_corruption import corruption_from
from gmml_models.recipes.pretraining import build_objective
from gmml_models.train.config import check, epochs_of
from tests.models.data_files import write_classes

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
SCRATCH = Row(name="tiny/scratch", what="scratch", finetune=FinetuneConfig(**TINY, **PLAIN))
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


def job_of(row: Row, seed: int, top1: float, **others: Any) -> Results:
    machine = dict.fromkeys(("cpu", "gpu", "system", "date", "python", "torch", "timm", "torchvision", "scikit-learn", "gmml"), "x")
    numbers = {"top1": top1, "knn": 5.0, "linear": 6.0, "seconds": 60.0, "row": row.name, "seed": seed, **others}
    return {key(row, seed): {**numbers, "settings": settings(row), "machine": {**machine, "threads": 1}}}


def jobs_of(row: Row, values: tuple[float, ...], **others: Any) -> Results:
    return {name: job for seed, value in enumerate(values) for name, job in job_of(row, seed, value, **others).items()}


PHOTOS = "caltech101_sub+flowers102_part+miml_scenes"


def claim(ours: str, relation: Any, theirs: str) -> Claim:
    return Claim(question="Is it?", ours=ours, relation=relation, theirs=theirs, words="better", source="table 2", paper="81.2")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The small rows are among those that claims may name."""
    for row in (SCRATCH, GMML):
        monkeypatch.setitem(BY_NAME, row.name, row)


def test_the_rows_can_be_run_and_their_claims_be_judged() -> None:
    assert len(BY_NAME) == len(ROWS)
    for row in ROWS:
        for config in (row.pretrain, row.finetune):
            if config is not None:
                check(config)
        if row.pretrain is not None:
            corruption_from(row.pretrain.corruption or "gmml", ((0.5,) * 3, (0.2,) * 3))
            if row.name in ("kinds/none", "fusion/all", "mc_ssl/both"):
                blocks = build_objective(row.pretrain).autoencoder.blocks
                assert blocks == {"kinds/none": (3, 4, 5, 6), "mc_ssl/both": (6,)}.get(row.name, row.pretrain.blocks)
    assert len(CLAIMS) == len(set(CLAIMS))
    for one in CLAIMS:
        assert {one.ours, one.theirs} <= set(BY_NAME)
        assert one.source
        assert one.words
        assert set(one.measures) <= set(MEASURES)
        for row in (BY_NAME[one.ours], BY_NAME[one.theirs]):
            assert len(row.seeds) >= SEEDS, row.name
            assert set(one.measures) <= set(row.measures), row.name


def test_every_number_in_the_json_belongs_to_a_row_with_the_settings_it_has_now() -> None:
    results = read(command_line.RESULTS)
    assert len(results) >= 49
    for name, job in results.items():
        if not name.startswith("speed"):
            row = BY_NAME[job["row"]]
            assert name == key(row, job["seed"])
            assert whole(row, job), name
            assert f"ONLY={row.name}" in job["command"]
            before = named(replace(row.pretrain, seed=job["seed"])) if row.pretrain else ""
            assert job["parts"].get("pretrain", {}).get("folder", "") == before  # runs of then are found and shipped now
            if "top1" in row.measures:
                assert job["parts"]["finetune"]["folder"] == named(replace(row.finetune, seed=job["seed"]), after=before)
            assert {"cpu", "gpu", "threads", "torch", "date"} <= set(job["machine"])


def test_what_a_user_would_ask_first_comes_first() -> None:
    asked = list(dict.fromkeys(one.question for one in CLAIMS))
    words = (
        "scratch for as long",
        "masks",
        "same fine-tuning",
        "Which corruption",
        "GPU",
        "How much",
        "blocks",
        "MC-SSL",
        "other images",
    )
    assert [word in question for word, question in zip(words, asked, strict=False)] == [True] * len(words)
    seen = {"caltech101_sub": 1_515, "flowers102_part/15": 1_335, "cifar10_sub/100": 1_000, "cifar10_sub": 10_000, PHOTOS: 7_450}
    for one in (claim for claim in CLAIMS if claim.question == asked[0]):
        ours, theirs = BY_NAME[one.ours], BY_NAME[one.theirs]
        assert ours.pretrain is not None
        assert theirs.pretrain is None
        assert replace(ours.finetune, epochs=theirs.finetune.epochs) == theirs.finetune
        views = sum(epochs_of(config) * seen[config.data] for config in (ours.pretrain, ours.finetune))
        least = seen[theirs.finetune.data]
        assert views <= epochs_of(theirs.finetune) * least <= views + least


def test_corruptions_are_compared_with_all_else_equal() -> None:
    for data in ("caltech101_sub", "flowers102_part/15"):
        rows = [row for row in ROWS if row.group == "corruptions" and row.finetune.data == data]
        assert len({replace(row.pretrain, corruption=None) for row in rows if row.pretrain}) == 1
        assert len({row.pretrain.corruption for row in rows if row.pretrain}) == len(rows) == 8
        assert {row.seeds for row in rows} == {(0, 1, 2, 3, 4)}


def test_all_rows_of_a_group_fine_tune_alike() -> None:
    for group in ("kinds", "masks", "extent", "fusion", "mc_ssl", "transfer"):
        tuned = {str(replace(row.finetune, precision="bf16")) for row in ROWS if row.group == group}
        assert tuned == {str(BY_NAME["control/scratch"].finetune)}


def test_rows_are_compared_in_the_same_numbers_unless_these_are_the_question() -> None:
    def formats(row: Row) -> set[str]:
        return {config.precision for config in (row.pretrain, row.finetune) if config is not None}

    for row in ROWS:
        assert len(formats(row)) == 1
    for one in CLAIMS:
        asked = one.words == "float32 instead of bfloat16"
        assert (formats(BY_NAME[one.ours]) == formats(BY_NAME[one.theirs])) is not asked


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


def test_questions_are_run_in_order_and_in_each_the_first_seed_of_all_rows_first() -> None:
    order = [key(row, seed) for row, seed in jobs(ROWS)]
    assert order.index("main/flowers-gmml seed 0") < order.index("main/caltech-scratch seed 1")
    assert order.index("main/caltech-gmml seed 2") < order.index("masks/gmml seed 0")
    assert order.index("corruptions/mae-flowers seed 0") < order.index("corruptions/alien seed 1")
    assert order.index("masks/beit seed 0") < order.index("masks/gmml seed 1")
    assert len(order) == len(set(order)) == sum(len(row.seeds) for row in ROWS)
    assert [seed for _, seed in jobs(ROWS[:2], (7, 9))] == [7, 7, 9, 9]


@pytest.mark.parametrize(("prefix", "tuned"), [("tune/", "control/scratch"), ("gpu/tune-", "gpu/scratch")])
def test_what_was_tuned_is_what_the_grid_chose(prefix: str, tuned: str) -> None:
    results, rows = read(command_line.RESULTS), [one for one in ROWS if one.name.startswith(prefix)]
    grid = {row.name: table.values(row, results, "top1") for row in rows}
    assert len(grid) > 2
    assert all(grid.values())
    best, wanted = BY_NAME[max(grid, key=lambda name: grid[name][0])].finetune, BY_NAME[tuned].finetune
    assert replace(best, data=wanted.data, epochs=wanted.epochs) == wanted


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


def test_a_job_resumes_where_it_was_stopped_is_done_once_and_gives_the_same_numbers_from_nothing(
    data: Path, tmp_path: Path
) -> None:
    results, place, drawn = tmp_path / "claims.json", Place(data=data, runs=tmp_path / "runs"), []
    told: dict[str, Any] = {"tell": silent, "after": lambda: drawn.append(1)}
    measured = ("top1", "knn", "linear", "loss")
    assert not run([(GMML, 0)], replace(place, until=time.monotonic()), results, **told)  # no time at all
    hasty = Hasty(data=data, runs=place.runs)
    for _ in range(9):  # eight steps of pretraining, then the first ones of fine-tuning
        assert not run([(GMML, 0)], hasty, results, **told)
    noted = [(path.name[:5], json.loads(path.joinpath("part.json").read_text())) for path in sorted(place.runs.glob("[a-z]*ep-*"))]
    assert [(name, found.get("finished", False)) for name, found in noted] == [("gmml-", True), ("tuned", False)]
    assert read(results) == {}
    next(place.runs.glob("tuned*/part.json")).write_text('{"seconds": 1000.0}')  # the calls before took long
    assert run([(GMML, 0)], place, results, **told)
    found, written = read(results)["tiny/gmml seed 0"], results.stat().st_mtime_ns
    assert found["loss"] > 0
    assert found["seconds"] > found["parts"]["finetune"]["seconds"] > 1000
    assert found["command"] == "make claims DATA=FOLDER ONLY=tiny/gmml SEEDS='0'"
    assert whole(GMML, found)
    assert not whole(replace(GMML, finetune=replace(GMML.finetune, lr=1e-3)), found)
    assert run([(GMML, 0)], place, results, **told)
    assert (results.stat().st_mtime_ns, drawn) == (written, [1])
    assert run([(GMML, 0)], place, results, again=True, **told)
    again = read(results)["tiny/gmml seed 0"]
    assert again["again"]["same"]
    assert sorted(path.name for path in (place.runs / "again").glob("[a-z]*")) == sorted(
        part["folder"] for part in found["parts"].values()
    )
    assert [again["again"][one] for one in measured] == [found[one] for one in measured]
    assert {name: one for name, one in again.items() if name != "again"} == found


def test_numbers_that_differ_when_measured_again_are_noted(data: Path, tmp_path: Path) -> None:
    results, place = tmp_path / "claims.json", Place(data=data, runs=tmp_path / "runs")
    add(results, job_of(SCRATCH, 0, 99.0, top5=None, loss=None))
    said: list[str] = []
    assert run([(SCRATCH, 0)], place, results, again=True, tell=said.append)
    again = read(results)["tiny/scratch seed 0"]
    assert again["top1"] == 99.0
    assert not again["again"]["same"]
    assert "NOT the same" in said[-1]


def test_a_row_from_scratch_has_the_features_of_an_untrained_encoder(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "claims.json"
    assert run([(SCRATCH, 0)], Place(data=data, runs=tmp_path / "runs"), results, tell=silent)
    found = read(results)["tiny/scratch seed 0"]
    assert found["loss"] is None
    assert list(found["parts"]) == ["finetune", "probe"]
    assert (tmp_path / "runs" / found["parts"]["probe"]["folder"] / "untrained" / "config.json").exists()


def test_a_row_may_ask_for_features_alone(data: Path, tmp_path: Path) -> None:
    row = replace(GMML, name="tiny/features", measures=("linear", "knn"))
    results = tmp_path / "claims.json"
    said: list[str] = []
    assert run([(row, 0)], Place(data=data, runs=tmp_path / "runs"), results, tell=said.append)
    found = read(results)[key(row, 0)]
    assert found["top1"] is None
    assert sorted(found["parts"]) == ["pretrain", "probe"]
    assert whole(row, found)
    assert not whole(replace(row, measures=GMML.measures), found)
    assert said[-1].startswith("tiny/features seed 0: linear probe ")
    (line,) = (one for one in table.draw({key(row, 0): found}, [], [row]).splitlines() if "`tiny/features`" in one)
    assert line.split(" | ")[2] == ""


def test_what_another_process_is_at_comes_later(data: Path, tmp_path: Path) -> None:
    place = Place(data=data, runs=tmp_path)
    config = replace(SCRATCH.finetune, seed=0)
    with (tmp_path / f".{named(config)}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(runner.TakenError, match="scratch-caltech101_sub"):
            runner.finetuned(config, place)


def test_a_job_of_which_a_part_was_measured_counts_and_is_done_again(data: Path, tmp_path: Path) -> None:
    results = tmp_path / "claims.json"
    job = job_of(SCRATCH, 0, 20.0, knn=None, linear=None)
    assert table.values(SCRATCH, job, "top1") == [20.0]
    assert table.values(SCRATCH, job, "knn") == []
    add(results, job)
    assert run([(SCRATCH, 0)], Place(data=data, runs=tmp_path / "runs"), results, tell=silent)
    assert read(results)["tiny/scratch seed 0"]["knn"] is not None


def test_numbers_of_any_seed_count_and_those_of_other_settings_do_not() -> None:
    found = {**job_of(GMML, 11, 42.0), **job_of(GMML, 9, 40.0)}
    assert table.values(GMML, found, "top1") == [40.0, 42.0]  # by seed
    assert known_jobs(replace(GMML, finetune=replace(GMML.finetune, epochs=9)), found) == []
    assert known_jobs(GMML, {"speed cpu": {"recipe": 1.0}}) == []


def test_a_claim_is_judged_by_each_measure_with_its_effect_interval_seeds_and_p(tiny: None) -> None:
    results = {**jobs_of(GMML, (30.0, 31.0, 32.0), knn=7.0), **jobs_of(SCRATCH, (20.0, 21.0, 22.0))}
    lines = table.draw(results, [claim("tiny/gmml", ">", "tiny/scratch")], [SCRATCH, GMML]).splitlines()
    told = "| better (table 2): `tiny/gmml` against `tiny/scratch` | 81.2 | fine-tuning | 31.0 ± 1.0 against 21.0 ± 1.0 |"
    assert f"{told} +10.0 [+7.7, +12.3] | < 0.001 | 3 and 3 | holds |" in lines
    assert "|  |  | k-NN | 7.0 ± 0.0 against 5.0 ± 0.0 | +2.0 |  | 3 and 3 | undecided |" in lines
    assert lines[0].startswith("A difference counts at p < 0.05 by Welch's t-test, over at least 3 seeds a side;")
    assert lines[0].endswith("Of 3 comparisons (1 claims, by up to 3 measures): holds 1, undecided 2.")
    assert "| Is it? | holds 1 | undecided 1 | undecided 1 |" in lines
    equal = table.draw({**results, **jobs_of(GMML, (20.3, 21.0, 20.8))}, [claim("tiny/gmml", "=", "tiny/scratch")], [])
    assert "(90 %)" in equal


def test_one_seed_shows_its_difference_and_decides_nothing(tiny: None) -> None:
    results = {**jobs_of(GMML, (90.0,)), **jobs_of(SCRATCH, (20.0, 21.0, 22.0))}
    (first, *_) = table.judged(results, [claim("tiny/gmml", ">", "tiny/scratch")])
    assert first.verdict == "undecided"
    assert table.cells(first.found) == ["+69.0", "", "1 and 3"]


def test_the_table_has_mean_spread_command_and_what_was_not_run(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "draw", partial(table.draw, claims=[claim("tiny/gmml", ">", "tiny/scratch")], rows=(SCRATCH, GMML)))
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{BEGIN}\nold\n{END}\n\nMore by hand.\n", encoding="utf-8")
    table.write_into(page, {**job_of(SCRATCH, 0, 20.0), **job_of(SCRATCH, 1, 23.0)})
    text = page.read_text(encoding="utf-8")
    measured = "| `tiny/scratch` | scratch | 21.5 ± 2.1 | 6.0 ± 0.0 | 5.0 ± 0.0 | 0 1 | 2 min |"
    assert f"{measured} `make claims DATA=FOLDER ONLY=tiny/scratch SEEDS='0 1'` |" in text
    assert "| `tiny/gmml` | scratch | not run |" in text
    assert "`tiny/scratch` | 81.2 | fine-tuning | not run against 21.5 ± 2.1 |  |  |  | not run |" in text
    assert text.count("| not run |") == 2  # once a claim
    assert "old" not in text
    assert text.startswith("# By hand\n")
    assert text.endswith("More by hand.\n")
    page.write_text("# No markers\n", encoding="utf-8")
    with pytest.raises(UsageError, match="lacks the lines"):
        table.write_into(page, {})


def test_the_short_table_has_the_first_questions_as_far_as_they_were_run_and_counts_all(tiny: None) -> None:
    claims = [claim("tiny/gmml", ">", "tiny/scratch"), claim("tiny/scratch", ">", "tiny/gmml"), claim("gpu/gmml", ">", "gpu/mae")]
    results = {**jobs_of(SCRATCH, (20.0, 21.0, 22.0)), **jobs_of(GMML, (30.0, 31.0, 32.0))}
    lines = table.draw_short(results, claims).splitlines()
    assert lines[2:] == [
        "| better | fine-tuning | 31.0 ± 1.0 | 21.0 ± 1.0 | +10.0 [+7.7, +12.3] | < 0.001 | 3 and 3 | holds |",
        "| better | fine-tuning | 21.0 ± 1.0 | 31.0 ± 1.0 | -10.0 [-12.3, -7.7] | < 0.001 | 3 and 3 | does not hold |",
        "",
        f"{table.RULE}. Of 9 comparisons (3 claims, by up to 3 measures): holds 1, does not hold 1, undecided 4, not run 3.",
    ]


def test_the_curve_has_a_point_for_each_length_and_grows_by_epochs_alone(tmp_path: Path) -> None:
    for data, names in curve.RUNS.items():
        rows = [BY_NAME[name] for name in names]
        lengths = [epochs_of(row.pretrain) for row in rows if row.pretrain]
        assert lengths == sorted(set(lengths))
        assert len({replace(row.pretrain, epochs=1, resident_size=None) for row in rows if row.pretrain}) == 1
        assert len({row.finetune for row in rows} | {replace(BY_NAME[curve.SCRATCH[data]].finetune, epochs=40)}) == 1
    measured = BY_NAME["worth/flowers"]
    results = {**jobs_of(measured, (40.0, 42.0)), **jobs_of(BY_NAME["corruptions/alien"], (1.0,), linear=15.0)}
    results["corruptions/alien seed 0"]["top1"] = None
    assert curve.points(results, "top1") == {"Flowers-102": [(89_400, [40.0, 42.0])], "Caltech-101": []}
    assert curve.points(results, "linear")["Caltech-101"] == [(37_250, [15.0])]
    curve.save(results, tmp_path / "new" / "curve.png")
    assert (tmp_path / "new" / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_a_card_has_what_was_measured_of_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = BY_NAME["main/caltech-gmml"]
    assert ship.main(["main/caltech-gmml", "--name", "gmml_x.y", "--runs", str(tmp_path)]) == 2
    assert "Run the row first: make claims DATA=FOLDER ONLY=main/caltech-gmml SEEDS='0'" in capsys.readouterr().out
    assert ship.main(["main/caltech-scratch", "--name", "gmml_x.y"]) == 2
    (tmp_path / "config.json").write_text('{"gmml": {"objective": "gmml", "files": {}}}', encoding="utf-8")
    about = ship.about(row, 0, "gmml_x.y", tmp_path)
    assert [metric["value"] for metric in about["metrics"]] == [19.6, 12.8, 8.4]  # of the weights that are shipped
    assert [metric["mean"] for metric in about["metrics"]] == [18.8, 13.3, 8.3]
    assert {tuple(metric["mean_seeds"]) for metric in about["metrics"]} == {(0, 1, 2)}
    assert {metric["command"] for metric in about["metrics"]} == {"make claims DATA=FOLDER ONLY=main/caltech-gmml SEEDS='0 1 2'"}
    assert about["data"]["images"] == 1515
    tuned, linear, near = about["metrics"]
    assert [one["name"] for one in tuned["baselines"]] == [f"from scratch, {n} epochs" for n in (40, 44, 100)]
    assert [one["name"] for one in linear["baselines"]] == list(WORDS_OF_BASELINES.values())
    assert [one["name"] for one in near["baselines"]] == list(WORDS_OF_BASELINES.values())


@pytest.mark.parametrize(
    ("name", "images", "licence", "measured"),
    [
        ("weights/photos", 7450, ("other", "LICENSE"), ["caltech101_sub", "flowers102_part"]),
        ("weights/openclipart", 3417, ("cc0-1.0", "https://creativecommons.org/publicdomain/zero/1.0/"), ["caltech101_sub"]),
    ],
)
def test_a_run_of_several_packs_is_shipped_with_all_that_is_known_of_it(
    name: str, images: int, licence: tuple[str, str], measured: list[str], tmp_path: Path
) -> None:
    row = BY_NAME[name]
    assert row.pretrain is not None
    run = tmp_path / "runs" / named(replace(row.pretrain, seed=0))
    model = gm.GMMLAutoencoder(row.pretrain.model, target="normalised")
    model.save_pretrained(run / "weights", about={"objective": "gmml", "recipe": {"epochs": 2}})
    (run / "epochs.jsonl").write_text("".join(json.dumps({"epoch": n, "step": n, "loss": 1 / n}) + "\n" for n in (1, 2)))
    results: Results = {}
    for each in ship.tuned_alike(row):
        found = {"top1": 31.26, "linear": 24.0, "knn": 20.04, "top5": 50.0, "loss": 0.5, "seconds": 9.0}
        parts = {"pretrain": {"seconds": 7200.0, "images_per_second": 130.0, "threads": 1, "folder": run.name}}
        results[key(each, 0)] = {
            **found, "row": each.name, "seed": 0, "settings": settings(each), "parts": parts, "machine": runner.machine(),
        }  # fmt: skip
    add(tmp_path / "weights.json", results)
    words = ["--name", "gmml_x.y", "--runs", str(tmp_path / "runs"), "--results", str(tmp_path / "weights.json")]
    assert ship.main([name, *words, "--to", str(tmp_path)]) == 0
    folder = tmp_path / "gmml_x.y"
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "epochs.jsonl").read_text().count("\n") == 2
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"), ignore_metadata_errors=False)
    told: dict[str, Any] = card.data.to_dict()  # type: ignore[no-untyped-call]
    assert (told["license"], told["license_link"]) == licence
    assert (folder / "LICENSE").exists() == (licence[0] == "other")
    assert told["datasets"] == [one["id"] for one in data_of(row.pretrain.data)["sets"]]
    (index,) = told["model-index"]
    assert [one["dataset"]["type"] for one in index["results"]] == measured
    for one in index["results"]:
        assert one["dataset"]["split"] == "test"
        assert [(metric["type"], metric["value"]) for metric in one["metrics"]] == [
            ("accuracy", 31.3),
            ("accuracy", 24.0),
            ("accuracy", 20.0),
        ]
        assert all(metric["args"]["seeds"] == [0] for metric in one["metrics"])
        assert set(one["metrics"][1]["args"]["baselines"]) == set(WORDS_OF_BASELINES.values())
    ours = json.loads((folder / "config.json").read_text())["gmml"]
    assert (ours["data"]["images"], ours["run"]["seconds"], ours["target"]) == (images, 7200.0, "normalised")
    assert ours["cost"]["gmacs"] == pytest.approx(0.0847, abs=1e-3)
    for words_ in ("6 blocks, 128 wide", "2.00 h", "loss.png", "0.0847 G", "images a second", "| HOG |"):
        assert words_ in str(card), words_
    assert "vit_tiny" not in str(card).split("timm builds it from")[0]


def test_what_is_not_known_of_the_data_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is known of the data mnist/2000"):
        data_of("mnist/2000")
    with pytest.raises(UsageError, match="Give --data FOLDER"):
        baselines_of(BY_NAME["weights/photos"].finetune, known=tmp_path / "none.json")


@pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="needs scikit-learn")
def test_baselines_are_measured_once_and_then_known(data: Path, tmp_path: Path) -> None:
    config = replace(GMML.finetune, img_size=32, patch_size=8)
    first = baselines_of(config, known=tmp_path / "known.json", data=data)
    assert [one["name"] for one in first["knn"]] == [one["name"] for one in first["linear"]] == list(WORDS_OF_BASELINES.values())
    assert baselines_of(config, known=tmp_path / "known.json") == first
    assert all(0 <= one["value"] <= 100 for some in first.values() for one in some)


def test_the_command_line_lists_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = str(tmp_path / "claims.json")
    assert command_line.main(["--list", "--results", results]) == 0
    said = capsys.readouterr().out
    assert "main/caltech-gmml seed 0" in said
    assert "gpu/gmml" not in said
    assert command_line.main(["--list", "--results", results, "--only", "gpu/*", "--seeds", "2", "7"]) == 0
    assert "gpu/gmml seed 7" in capsys.readouterr().out
    assert command_line.main(["--list", "--only", "masks/mae", "--seeds", "0", "1"]) == 0
    known, other, _ = capsys.readouterr().out.splitlines()
    assert "13.56 %" in known
    assert "~ 14 min" in other
    assert command_line.main(["--only", "nothing/*", "--results", results]) == 2
    assert "no row is named" in capsys.readouterr().err
    assert command_line.main(["--again", "--only", "kinds/zeros", "--results", results]) == 2
    assert "Leave --again out" in capsys.readouterr().err
    assert not Path(results).exists()


def test_where_scipy_is_missing_rows_run_and_the_tables_wait(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    page = tmp_path / "page.md"
    assert command_line.main(["--table", "--page", str(page), "--readme", str(page), "--results", str(tmp_path / "none.json")]) == 0
    assert not page.exists()


def test_speed_is_measured_in_blocks_in_turn(data: Path, tmp_path: Path) -> None:
    assert GMML.pretrain is not None
    found = speed(
        replace(GMML.pretrain, model="vit_micro_patch8_64", img_size=None, patch_size=None),
        open_images("caltech101_sub", data).train,
        rounds=1,
        steps=1,
    )
    assert found["recipe"] > 0
    assert found["share"] == pytest.approx(found["recipe"] / found["step"])
    assert (found["precision"], found["rounds"], found["steps"]) == ("fp32", 1, 1)
    json.dumps(found)
