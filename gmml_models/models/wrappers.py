"""Handles wrappers around or inside a model: they are removed if this changes nothing, and reported if the weights differ."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

# what wrappers call the module inside: torch.compile; activation checkpointing; FSDP 1; DistributedDataParallel, DataParallel
_INSIDE = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module", "module")
_PREFIXES = re.compile(r"(^|(?<=\.))(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.|^(module\.)+")
_QUANTISED = ("torch.ao.", "torch.nn.quantized", "torchao.", "bitsandbytes.", "quanto.", "optimum.quanto.")


def without_prefixes(name: str) -> str:
    """A parameter's name without the prefixes of wrappers: ``module._orig_mod.norm.bias`` becomes ``norm.bias``."""
    before = None
    while name != before:
        before, name = name, _PREFIXES.sub("", name)
    return name


def plain_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename tensors without the prefixes of wrappers; unchanged if two would get the same name."""
    plain = {without_prefixes(name): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else dict(tensors)


def inside(module: nn.Module) -> nn.Module | None:
    """The module inside a wrapper; None for a module that is not a wrapper."""
    kind = type(module)
    wraps = kind.__name__ in ("OptimizedModule", "CheckpointWrapper", "DistributedDataParallel", "DataParallel")
    if not wraps or not kind.__module__.startswith("torch."):
        return None
    return next((getattr(module, name) for name in _INSIDE if isinstance(getattr(module, name, None), nn.Module)), None)


@contextmanager
def saveable(who: str, model: nn.Module, *, shapes_only: bool = False) -> Iterator[None]:
    """Temporarily remove wrappers from the parts of a model, after checking that its weights are plain.

    Args:
        who: the name of the caller, for errors.
        model: the model to save.
        shapes_only: True if the weights come from elsewhere, so that the model may be sharded or on the meta device.

    Raises:
        ValueError: the model is on the meta device, quantised or sharded, or has adapters or parametrisations that are not merged.
    """
    taken: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                plain = child
                while (deeper := inside(plain)) is not None:
                    plain = deeper
                if plain is not child:
                    taken.append((parent, name, child))
                    parent._modules[name] = plain
        if not shapes_only:
            _check_weights(who, model)
        yield
    finally:
        for parent, name, child in reversed(taken):
            parent._modules[name] = child


def _check_weights(who: str, model: nn.Module) -> None:
    def refuse(what: str, advice: str) -> None:
        raise ValueError(f"{who}: {what}. {advice}")

    for name, part in model.named_modules():
        at, kind = name or "the model", type(part)
        if kind.__module__.startswith(_QUANTISED):
            refuse(
                f"{at} is quantised ({kind.__module__}.{kind.__name__})",
                "Save the model before it is quantised, and quantise it again after loading.",
            )
        if kind.__name__ in ("FullyShardedDataParallel", "FSDPModule") or kind.__name__.startswith("FSDP"):
            refuse(f"{at} is sharded over processes (FSDP)", _GATHER)
        if kind.__module__.startswith("peft.") or any(one.startswith("lora_") for one in (*part._parameters, *part._modules)):
            refuse(
                f"{at} holds adapters that are not merged ({kind.__name__})",
                "Merge them into the weights first, with peft model = model.merge_and_unload().",
            )
        if torch.nn.utils.parametrize.is_parametrized(part):
            refuse(
                f"{at} has parametrised weights ({', '.join(part.parametrizations)})",
                "Merge them first: torch.nn.utils.parametrize.remove_parametrizations(module, name).",
            )
    tensors: dict[str, Any] = model.state_dict()
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            continue  # extra state, which no file of tensors holds
        if tensor.is_meta:
            refuse(
                f"{name} is on torch's meta device and has no values",
                "Build the model on a real device, or load weights into it first.",
            )
        if type(tensor).__name__ == "DTensor":
            refuse(f"{name} is sharded over processes (DTensor)", _GATHER)
        if tensor.is_quantized or type(tensor).__module__.startswith(_QUANTISED):
            refuse(
                f"{name} is quantised ({type(tensor).__name__})",
                "Save the model before it is quantised, and quantise it again after loading.",
            )
        if tensor.layout != torch.strided:
            refuse(f"{name} is sparse ({tensor.layout})", "Make it dense first: parameter.to_dense().")


_GATHER = (
    "Gather it first: torch.distributed.checkpoint.state_dict.get_model_state_dict(model, options=StateDictOptions("
    "full_state_dict=True)), load that into a new model, and save that."
)
