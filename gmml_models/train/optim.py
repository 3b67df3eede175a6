"""The optimiser: groups of parameters, the rates of a step, and gradient clipping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from gmml_models.schedule import Schedule

_BARE = ("cls_token", "pos_embed", "dist_token", "reg_token")


def parameter_groups(model: nn.Module, lr_scale: Mapping[str, float]) -> list[dict[str, Any]]:
    """Group parameters by learning rate factor and weight decay.

    Tensors with one axis, tokens and position embeddings do not decay.

    Args:
        model: the model; parameters that require no gradient are ignored.
        lr_scale: the factor by parameter name; 1 for names that are not listed.

    Returns:
        Groups for an optimiser, each with ``lr_scale`` and ``decays``.

    Source:
        The authors' release for biases and norms (all tensors with one axis), timm for class tokens and position embeddings.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in _BARE
        scale = lr_scale.get(name, 1.0)
        group = groups.setdefault((scale, decays), {"params": [], "lr_scale": scale, "decays": decays})
        group["params"].append(parameter)
    return list(groups.values())


def set_rates(optimizer: torch.optim.Optimizer, schedule: Schedule, step: int) -> tuple[float, float]:
    """Set every group's learning rate and weight decay for a step, counting from 0; returns them for groups with factor 1."""
    lr, decay = schedule.lr_at(step), schedule.weight_decay_at(step)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = lr * group["lr_scale"], decay if group["decays"] else 0.0
    return lr, decay


@torch.no_grad()
def clip_gradients(gradients: Sequence[Tensor], limit: float | None) -> Tensor:
    """Scale each gradient, in place, to a norm of at most ``limit``; returns the norm of all of them before that, ().

    Norms of sharded gradients are those of the complete gradients.

    Source:
        Clipping each parameter separately is from the authors' release; the papers do not mention clipping.
    """
    if not gradients:
        return torch.zeros(())
    if isinstance(gradients[0], DTensor):
        norms = [_whole(torch.linalg.vector_norm(gradient)) for gradient in gradients]
    else:
        norms = list(torch._foreach_norm(list(gradients)))
    if limit is not None:
        mine = [gradient.to_local() if isinstance(gradient, DTensor) else gradient for gradient in gradients]
        torch._foreach_mul_(mine, [(limit / (norm + 1e-6)).clamp(max=1.0) for norm in norms])
    norm: Tensor = torch.stack(norms).float().norm()
    return norm


def _whole(norm: Tensor) -> Tensor:
    return norm.full_tensor() if isinstance(norm, DTensor) else norm
