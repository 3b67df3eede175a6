"""``gmml corrupt``: shows what a preset does to photographs, as a contact sheet and in numbers.

Modules that need torch are imported in the methods, so that the command line can show its help without importing torch.
"""

from __future__ import annotations

import inspect
import secrets
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from gmml_models.cli.arguments import (
    bundled_photographs,
    check_output,
    check_range,
    device_of,
    read_images,
    several,
    write_sheet,
)
from gmml_models.errors import UsageError

if TYPE_CHECKING:
    import torch

    from gmml_aug import Corruption, Plan
    from gmml_models.data.image_files import Reading
    from gmml_models.figures.contact_sheet import Sheet
    from gmml_models.figures.corruption_steps import Stage

_WHO = "gmml corrupt"
_DEMO = Path("demo.png")
_DEMO_SEED = 144  # every step shows on every photograph
_SEEDS = 1 << 31
_SIZES, _COLUMNS, _BATCHES = (16, 1024), (1, 64), (1, 1024)
_ROUNDS = 9  # of the measurement
_TYPICAL, _LARGEST = 64, 1 << 28  # images of a batch in training, and bytes of it that are worth measuring


@dataclass(frozen=True)
class Corrupt:
    """Corrupt photographs with a preset and draw the effect of each of its steps."""

    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="[IMAGES ...]")] = ()
    """Image files, or folders of them, of any size and mode; the centre square of each is used."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"], metavar="FILE")] = None
    """File for the figure, .png or .pdf; by default demo.png with --demo."""
    demo: bool = False
    """Use the photographs of scikit-image if no IMAGES are given."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 224
    """The shorter side of every image is resized to this."""
    preset: Literal[
        "ablation", "beit", "dinov2", "gmml", "gmml_reference", "ibot", "mae", "mc_ssl", "simmim", "sit", "specaugment"
    ] = "gmml"
    """Preset to apply: the corruption of a paper or of an authors' release, or the masks of a related method."""
    seed: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Random seed; by default a new one, which is printed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device to use; auto is the GPU if there is one."""
    columns: Annotated[int, tyro.conf.arg(metavar="N")] = 8
    """Largest number of images in the figure."""
    batch: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Largest number of images in the batch; further images are not read."""

    def run(self) -> int:
        """Read, corrupt and draw the images, and report; the exit code is 1 if files had to be skipped."""
        self._check_numbers()
        output = self._output()
        paths = self._paths()
        import torch

        import gmml_aug
        from gmml_models.figures import corruption_steps

        device = device_of(_WHO, self.device)
        reading = read_images(_WHO, paths, self.size, self.batch, output, ", or --demo for photographs that come with scikit-image")
        count = len(reading.photographs)
        build = getattr(gmml_aug.presets, self.preset)
        foreign = "alone" in inspect.signature(build).parameters
        if count == 1 and foreign:
            print("gmml corrupt: alien content comes from another image, but there is only one: give two or more.", file=sys.stderr)

        seed = self.seed if self.seed is not None else _DEMO_SEED if self.demo and not self.images else secrets.randbelow(_SEEDS)
        options = {"alone": "skip"} if count == 1 and foreign else {}
        corrupt: Corruption = build(values=(corruption_steps.MEAN, corruption_steps.STD), **options)
        batch = corruption_steps.normalise(
            corruption_steps.to_batch([photograph.picture for photograph in reading.photographs]).to(device)
        )
        try:
            plan = corrupt.sample(batch.shape, keys=gmml_aug.keys(seed, 0, range(count), device=device))
        except ValueError as error:  # images smaller than a cell of the preset
            raise UsageError(f"gmml corrupt: {error} Give a larger --size.") from error
        alone = corruption_steps.stages(corrupt, batch, plan, min(count, self.columns))
        written = write_sheet(_WHO, self._sheet(corrupt, batch, plan, alone, reading, seed), output)

        parts = ", ".join(f"{stage.name} {corruption_steps.mean(stage.shares)}" for stage in alone)
        together = corruption_steps.mean(corruption_steps.shares(corrupt.apply(batch, plan).mask))
        where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
        print(f"{self.preset} on one batch of {several(count, 'image')}, 3 x {self.size} x {self.size}, {where}, seed {seed}")
        if reading.left:
            print(f"  skipped {several(reading.left, 'file')} that were not read; raise --batch to include them")
        print(f"  touched  {parts}; together {together} of the pixels")
        print(f"  speed    {speed(corrupt, batch)}")
        if 1 < count < _TYPICAL and batch[0].nbytes * _TYPICAL <= _LARGEST:  # small batches pay mostly for the calls into torch
            many = batch.repeat(-(-_TYPICAL // count), 1, 1, 1)[:_TYPICAL]
            print(f"           {speed(corrupt, many)}")
        print(f"           (smallest of {_ROUNDS} after a warm-up, alternating with clone; one thread on the CPU)")
        print(f"  sheet    {written}")
        print("In a training loop, with the mean and std that your images were normalised by:")
        print("  import gmml_aug")
        print(f"  corrupt = gmml_aug.presets.{self.preset}(values=(mean, std))")
        print("  images, mask = corrupt(batch)  # (B, 3, H, W) on any device; the mask is True where a pixel was touched")
        return 1 if reading.skipped else 0

    def _check_numbers(self) -> None:
        limits = (("size", self.size, _SIZES), ("columns", self.columns, _COLUMNS), ("batch", self.batch, _BATCHES))
        for name, value, limit in limits:
            check_range(_WHO, name, value, *limit)

    def _output(self) -> Path:
        """The path of the sheet, checked before any work is done."""
        if self.output is None and not self.demo:
            raise UsageError("gmml corrupt: no file was given for the sheet. Give one with -o, for example -o sheet.png.")
        output = self.output or _DEMO
        check_output(_WHO, output, self.images)
        return output

    def _paths(self) -> Sequence[Path]:
        if self.images:
            return self.images
        if not self.demo:
            raise UsageError("gmml corrupt: no IMAGES were given. Give image files, or folders of them, or --demo.")
        return bundled_photographs(_WHO, "--demo")

    def _sheet(
        self, corrupt: Corruption, batch: torch.Tensor, plan: Plan, alone: Sequence[Stage], reading: Reading, seed: int
    ) -> Sheet:
        from gmml_models.figures import corruption_steps
        from gmml_models.figures.contact_sheet import Sheet, edge_of
        from gmml_models.recipes.parse_corruption import PRESETS

        count = len(reading.photographs)
        shown = min(count, self.columns)
        some = f" The first {shown} are shown; shares on the left are means over all images." if shown < count else ""
        on = ", device=batch.device" if batch.device.type != "cpu" else ""
        options = "values=(mean, std)" + (', alone="skip"' if corrupt.program.reads_donors and count == 1 else "")
        return Sheet(
            title=self.preset,
            about=f"{PRESETS[self.preset]}, on one batch of {several(count, 'image')} of {self.size} x {self.size} pixels.{some} "
            "Every step is also shown alone, at the same positions.",
            columns=[f"{number}  {photograph.path.stem}" for number, photograph in enumerate(reading.photographs[:shown], start=1)],
            rows=corruption_steps.rows(corrupt, batch, plan, alone, shown, edge_of(self.size)),
            legend=corruption_steps.legend(corrupt, plan, alone),
            code=f"images, mask = gmml_aug.presets.{self.preset}({options})"
            f"(batch, keys=gmml_aug.keys({seed}, 0, range({count}){on}))",
        )


def speed(corrupt: Corruption, batch: torch.Tensor) -> str:
    """Say how long a batch takes, compared with ``batch.clone()``: the minimum of several alternating runs, after a warm-up.

    On the CPU one thread is used, because a second one stalls whenever its core serves another process.
    """
    import torch

    from gmml_aug import keys

    key = keys(0, 0, range(len(batch)), device=batch.device)

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        if batch.device.type == "cuda":
            torch.cuda.synchronize(batch.device)
        return time.perf_counter() - start

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        rounds = [(seconds(lambda: corrupt(batch, keys=key)), seconds(batch.clone)) for _ in range(_ROUNDS + 1)][1:]
    finally:
        torch.set_num_threads(threads)
    call, clone = (min(times) for times in zip(*rounds, strict=True))
    return (
        f"{several(len(batch), 'image')} in {call * 1e3:.2f} ms, {len(batch) / call:,.0f} img/s, "
        f"{call / clone:.1f} x batch.clone() with fresh memory ({clone * 1e3:.2f} ms)"
    )
