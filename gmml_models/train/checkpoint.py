"""Checkpoints of a run: complete or absent, and never a pickle.

A checkpoint is a folder ``step-00000123`` with ``state.safetensors`` (model and optimiser) and ``state.json`` (step, sums, the
file's sha256). It is written under another name, flushed and renamed, so a reader sees either a complete checkpoint or none;
older ones are removed only after the rename. Under FSDP every process takes part in gathering, and the first one writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from gmml_models.errors import UsageError

if TYPE_CHECKING:
    from gmml_models.train.parallel import Parallel
    from gmml_models.train.run_folder import RunFolder

_TENSORS, _FACTS = "state.safetensors", "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@final
@dataclass
class State:
    """The progress of a run, without its tensors.

    Attributes:
        step: steps done.
        skipped: number of steps skipped because a number was not finite.
        in_a_row: number of steps skipped since the last one that was not.
        sums: the sums of the numbers of this epoch's steps, by name, with their count under ``taken``.
    """

    step: int = 0
    skipped: int = 0
    in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)


def save(
    run: RunFolder,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    *,
    facts: Mapping[str, Any],
    keep: int,
    parallel: Parallel,
) -> None:
    """Write a checkpoint of a run; every process must call it.

    Args:
        run: the folder.
        model: the unwrapped model.
        optimizer: the optimiser of its parameters.
        state: the progress of the run.
        facts: facts about data and model, in JSON types; `resume` refuses a run with different ones.
        keep: number of newest checkpoints to keep, at least 1.
        parallel: the processes.

    Raises:
        UsageError: there is no space or no permission; existing checkpoints are unchanged.
    """
    tensors = gather(model, optimizer)
    if parallel.first:
        about = {"skipped": state.skipped, "in_a_row": state.in_a_row, "sums": state.sums, "facts": facts}
        try:
            write(run.checkpoints, state.step, tensors, about, max(keep, 1))
        except OSError as error:
            last = newest(run.checkpoints)
            raise UsageError(
                f"gmml: no checkpoint could be written at step {state.step} ({error}). "
                + (f"The last good one is {last}. " if last else "There is none yet. ")
                + "Free some space, then run the same command again to resume."
            ) from error
    parallel.wait()


def resume(
    run: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer, *, facts: Mapping[str, Any], parallel: Parallel
) -> State:
    """Load the newest checkpoint of a run, if there is one; every process must call it.

    Args:
        run: the folder; rows of later steps are removed from its logs.
        model: the model that is filled.
        optimizer: the optimiser that is filled.
        facts: as in `save`.
        parallel: the processes.

    Raises:
        UsageError: the checkpoint is damaged, or belongs to other data or another model.
    """
    if parallel.first:
        clear_remains(run.checkpoints)
    parallel.wait()
    path, state = newest(run.checkpoints), State()
    if path is not None:
        about = read_facts(path)
        told, now = about.get("facts", {}), json.loads(json.dumps(dict(facts)))
        other = [
            f"{name}: {told.get(name)!r} -> {now.get(name)!r}" for name in sorted({*told, *now}) if told.get(name) != now.get(name)
        ]
        if other:
            raise UsageError(
                f"gmml: the run in {run.folder} started with other data or another model: {'; '.join(other)}. Use the original "
                f"data and model, or another --out."
            )
        try:
            restore(model, optimizer, read(path))
        except (RuntimeError, KeyError, ValueError) as error:
            raise UsageError(
                f"gmml: the checkpoint {path} does not fit this run ({str(error)[:500]}). It was written by another version or "
                "another data set; give another --out."
            ) from error
        state = State(int(about["step"]), about["skipped"], about["in_a_row"], about["sums"])
    elif run.done is not None:  # finished, and its checkpoints were not kept
        state = State(run.done)
    run.rewind(state.step)
    return state


def newest(folder: Path) -> Path | None:
    """The checkpoint with the highest step, or None."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return max(found, key=lambda path: int(path.name.removeprefix("step-")), default=None)


def clear_remains(folder: Path) -> None:
    """Remove partial files of a killed process; only one process may call this, before the run starts."""
    for path in folder.glob("*.part"):
        shutil.rmtree(path, ignore_errors=True)


def gather(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Gather all tensors of a run on the CPU, as ``model/NAME`` and ``optimizer/KIND/NAME``.

    Every process must call it; the first one gets them all.
    """
    tensors = {f"model/{name}": tensor for name, tensor in get_model_state_dict(model, options=_WHOLE).items()}
    # asked of an optimiser that has taken no step, torch would take one
    state: Any = get_optimizer_state_dict(model, optimizer, options=_WHOLE) if optimizer.state else {}
    for name, kinds in state.get("state", {}).items():
        for kind, value in kinds.items():
            tensors[f"optimizer/{kind}/{name}"] = value
    # copies: training goes on, and the file format wants memory that is neither shared nor strided
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items() if isinstance(tensor, Tensor)}


def whole_model(model: nn.Module) -> dict[str, Tensor]:
    """Gather the complete state of a possibly sharded model on the CPU; every process must call it."""
    found = get_model_state_dict(model, options=_WHOLE).items()
    return {name: tensor for name, tensor in found if isinstance(tensor, Tensor)}


def write(folder: Path, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], keep: int = 1) -> Path:
    """Write a checkpoint and then remove all but the ``keep`` newest; only one process may call this.

    Args:
        folder: the folder of the checkpoints, created if necessary.
        step: number of finished steps.
        tensors: the result of `gather`.
        facts: other facts that a resumed run needs, in JSON types.
        keep: the number of checkpoints to keep, at least 1.

    Raises:
        OSError: there is no space or no permission; existing checkpoints are unchanged.
    """
    from safetensors.torch import save

    target = folder / f"step-{step:08d}"
    if target.exists():  # a run resumed from it, and came back without a step done
        return target
    aside = folder / f"{target.name}.{os.getpid()}.part"
    try:
        aside.mkdir(parents=True)
        data = save(dict(tensors))  # in memory first: a write that fails must be an OSError, not the format's own error
        _write_through(aside / _TENSORS, data)
        about = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), "torch": torch.__version__, **facts}
        _write_through(aside / _FACTS, json.dumps(about, indent=2, sort_keys=True).encode())
        _flush(aside)
        aside.rename(target)
        _flush(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    whole = sorted((path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)), key=lambda path: int(path.name[5:]))
    for old in whole[:-keep]:
        dying = old.with_name(f"{old.name}.{os.getpid()}.part")  # renamed first: half a removal must not look like a checkpoint
        old.rename(dying)
        shutil.rmtree(dying, ignore_errors=True)
    return target


def read_facts(path: Path) -> dict[str, Any]:
    """Read the content of a checkpoint other than its tensors.

    Raises:
        UsageError: the checkpoint cannot be read.
    """
    try:
        return dict(json.loads((path / _FACTS).read_bytes()))
    except (OSError, ValueError) as error:
        raise UsageError(_damaged(path, error)) from error


def read(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint, after checking their sha256.

    Raises:
        UsageError: the checkpoint is damaged; the message says what to do.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    wanted = read_facts(path).get("sha256")
    try:
        data = (path / _TENSORS).read_bytes()
    except OSError as error:
        raise UsageError(_damaged(path, error)) from error
    found = hashlib.sha256(data).hexdigest()
    if found != wanted:
        raise UsageError(_damaged(path, f"its sha256 is {found[:12]}..., not {str(wanted)[:12]}..."))
    try:
        return load(data)
    except SafetensorError as error:
        raise UsageError(_damaged(path, error)) from error


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors from `gather` into model and optimiser. Every process must call it, with the same tensors."""
    weights: dict[str, Any] = {name.removeprefix("model/"): tensor for name, tensor in tensors.items() if name.startswith("model/")}
    set_model_state_dict(model, weights, options=StateDictOptions(full_state_dict=True, strict=True))
    state: dict[str, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer/"):
            _, kind, parameter = name.split("/", 2)
            state.setdefault(parameter, {})[kind] = tensor
    if not state:
        return
    now: Any = get_optimizer_state_dict(model, optimizer)  # its groups name the parameters in their order
    now["state"] = {name: state[name] for group in now["param_groups"] for name in group["params"] if name in state}
    set_optimizer_state_dict(model, optimizer, now, options=StateDictOptions(full_state_dict=True))


def _damaged(path: Path, why: object) -> str:
    return (
        f"gmml: the checkpoint {path} is damaged ({why}). Remove this folder to resume from the previous one (kept with --keep 2 "
        f"or more), or from the start."
    )


def _write_through(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
