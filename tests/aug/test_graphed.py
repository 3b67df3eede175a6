"""`Graphed` gives what a call gives: on a GPU by CUDA graphs, and by the interpreter by a tape of what a graph would record."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

import gmml_aug as ga
from gmml_aug.adapters import graph
from gmml_aug.backends import base, kept
from gmml_aug.backends.base import Choice
from gmml_aug.backends.triton import plan as fused_plan
from tests.aug.interpreter import by_interpreter, few_or_all, runs_once
from tests.helpers import random_images, same_bits, some_keys

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy, in the interpreter, of what is silent on a GPU

VALUES = ((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
SOME, ONE = ga.Boxes(ratio=0.3, side=(0.3, 0.6)), ga.Boxes(count=1, side=(0.3, 0.6), placement="inside")  # few: interpreted
PARTS = [
    ga.InBoxes(SOME, ga.OneOf([ga.Noise(), ga.Zeros()])), ga.InBoxes(SOME, ga.Alien()), ga.InBoxes(ONE, ga.Grey()),
    ga.InBoxes(ONE, ga.Blur(sigma=(0.3, 1.0), kernel=5)),
]  # fmt: skip
CORRUPTIONS = {"plain": ga.Chain(PARTS, values=VALUES), "budget": ga.Chain(PARTS, values=VALUES, budget=0.4)}
WAITS = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "unique", "masked_select")  # operations that ask the device
ASKS = ("empty", "new_empty")  # and those that only ask for memory


class Tape(TorchDispatchMode):
    """Stands for a CUDA graph: which operations and kernels ran on which memory, to be done again there, and nothing else.

    As in a graph, what the host decided while it was recorded stays as it was, and it cannot ask the device for a number.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[tuple[Any, ...]] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.name().split("::")[1].split(".")[0]
        if name in WAITS:
            raise RuntimeError(f"{name} is not permitted while a stream is captured")
        made = function(*args, **(kwargs or {}))
        written = any(one.alias_info is not None and one.alias_info.is_write for one in function._schema.arguments)
        looked = not written and any(one.alias_info is not None for one in function._schema.returns)
        if not looked and not name.startswith(ASKS):
            self.steps.append((function, args, kwargs or {}, None if written else made))
        return made

    def kernel(self, run: Any, *args: Any, **kwargs: Any) -> None:
        """Launch a kernel; it runs once more at each replay."""
        with _disable_current_modes():
            run(*args, **kwargs)
        self.steps.append((run, args, kwargs, None))

    def replay(self) -> None:
        """All of it again, into the same memory."""
        for run, args, kwargs, made in self.steps:
            again = run(*args, **kwargs)
            for old, new in zip(_tensors(made), _tensors(again), strict=True) if made is not None else ():
                old.copy_(new)


def _tensors(made: Any) -> list[Tensor]:
    return [one for one in (made if isinstance(made, (tuple, list)) else [made]) if isinstance(one, Tensor)]


class OneStream:
    """A stream, where there is one only."""

    def wait_stream(self, other: Self) -> None:
        """There is nothing to wait for."""


@pytest.fixture
def graphs(where: torch.device, monkeypatch: pytest.MonkeyPatch) -> list[Tape]:
    """Where there is no GPU: every tape that is recorded, and a torch that believes in one."""
    tapes: list[Tape] = []
    if where.type == "cuda":
        return tapes
    from triton.runtime import interpreter  # type: ignore[import-untyped, unused-ignore]

    run, recording = interpreter.InterpretedFunction.run, list[Tape]()

    def launch(self: Any, *args: Any, **kwargs: Any) -> None:
        if recording:
            recording[-1].kernel(run, self, *args, **kwargs)
        else:
            run(self, *args, **kwargs)

    @contextmanager
    def record(tape: Tape, *, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        recording.append(tape)
        try:
            with tape:
                yield
        finally:
            tapes.append(recording.pop())

    monkeypatch.setattr(interpreter.InterpretedFunction, "run", launch)
    monkeypatch.setattr(Tensor, "is_cuda", True)
    monkeypatch.setattr(graph, "_WARM_UP", 1)
    monkeypatch.setattr(base, "followed", lambda: False)  # kernels are for no graph of torch's, and this is none
    stand_ins = {
        "CUDAGraph": Tape, "graph": record, "Stream": OneStream, "current_stream": OneStream, "stream": nullcontext,
        "device": nullcontext,
    }  # fmt: skip
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return tapes


@pytest.fixture(params=["plain"])
def corrupt(request: pytest.FixtureRequest) -> ga.Corruption:
    """The preset; where a test asks for it, with a budget too."""
    return CORRUPTIONS[request.param]


@pytest.mark.parametrize("corrupt", CORRUPTIONS, indirect=True)
@pytest.mark.parametrize("backend", ["fused", "torch"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16], ids=str)
def test_it_gives_what_a_call_gives_and_draws_anew(
    where: torch.device, graphs: list[Tape], corrupt: ga.Corruption, dtype: torch.dtype | None, backend: Choice
) -> None:
    if backend == "torch" and where.type != "cuda":
        pytest.skip("on a CPU the reference goes through NumPy, which no graph would record")
    if where.type != "cuda" and (dtype is None) != (corrupt is CORRUPTIONS["plain"]):
        pytest.skip("the interpreter takes its time: each of both is seen once")

    def call(images: Tensor, **options: Any) -> Any:
        if dtype is None:
            return corrupt(images, backend=backend, **options)
        return corrupt.from_bytes(images, dtype=dtype, backend=backend, **options)

    graphed = ga.Graphed(corrupt, dtype=dtype, backend=backend, most=1)
    for count in (2, 3):  # two shapes in one place
        images = random_images((count, 3, 8, 9), torch.float32 if dtype is None else torch.uint8, count).to(where)
        keys = some_keys(count, count).to(where)
        found, wanted = graphed(images, keys=keys), call(images, keys=keys)
        assert type(found) is type(wanted)
        assert all(map(same_bits, found, wanted))
    torch.manual_seed(0)
    masks = [graphed(images).mask.clone() for _ in range(2)]
    torch.manual_seed(0)
    assert torch.equal(call(images).mask, masks[0])
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 2
    own = graphed.buffer(images)
    own.copy_(images.flip(0))
    found, wanted = graphed(own, keys=keys), call(images.flip(0), keys=keys)
    assert all(map(same_bits, found, wanted))
    if where.type != "cuda":
        assert len(graphs) == 2


def test_donors_may_be_written_to_and_the_clean_images_left_out(
    where: torch.device, graphs: list[Tape], corrupt: ga.Corruption
) -> None:
    images, donors = (random_images((count, 3, 8, 9), torch.uint8, count).to(where) for count in (2, 3))
    graphed = ga.Graphed(corrupt, dtype=torch.float32, clean=False, donors=donors, backend="fused")
    for seed in range(2):
        donors.copy_(random_images((3, 3, 8, 9), torch.uint8, 10 + seed).to(where))
        keys = some_keys(2, seed).to(where)
        found = graphed(images, keys=keys)
        wanted = corrupt.from_bytes(images, keys=keys, donors=donors, dtype=torch.float32, clean=False, backend="fused")
        assert type(found) is type(wanted) is ga.Corrupted
        assert all(map(same_bits, found, wanted))
    del graphs


def test_what_a_graph_reads_outlives_the_cache(
    where: torch.device, graphs: list[Tape], corrupt: ga.Corruption, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, keys = random_images((2, 3, 8, 9)).to(where), some_keys(2).to(where)
    monkeypatch.setattr(kept, "_MOST", 1)
    monkeypatch.setattr(fused_plan._prepare, "_found", {})
    graphed = ga.Graphed(corrupt, backend="fused")
    found = [one.clone() for one in graphed(images, keys=keys)]
    (prepared,) = (one[1] for one in fused_plan._prepare._found.values())
    table = weakref.ref(prepared.tables[0])
    del prepared
    for tape in graphs:  # a graph knows addresses, and keeps nothing alive
        tape.steps.clear()
    for size in (7, 10):
        corrupt.sample((2, 3, size, 9), keys=keys, backend="fused")  # takes its place
    gc.collect()
    assert table() is not None
    del graphed, found
    gc.collect()
    assert table() is None


def test_images_that_ask_for_a_gradient_are_refused(where: torch.device, graphs: list[Tape], corrupt: ga.Corruption) -> None:
    graphed, images = ga.Graphed(corrupt), random_images((2, 3, 8, 9)).to(where).requires_grad_()
    with pytest.raises(ValueError, match=r"Graphed: a graph gives no gradients to the images\. Detach them"):
        graphed(images)
    assert not graphs


def test_nothing_can_be_asked_of_the_device_while_a_graph_is_recorded() -> None:
    tape, images = Tape(), torch.arange(3.0)
    with tape:
        doubled = images * 2
        with pytest.raises(RuntimeError, match="not permitted"):
            bool(doubled.sum() > 0)
    images += 1
    tape.replay()
    assert doubled.tolist() == [2.0, 4.0, 6.0]


@runs_once
@few_or_all
def test_all_of_it_by_the_interpreter(everything: bool) -> None:
    by_interpreter(__file__, everything=everything)
