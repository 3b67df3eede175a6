"""Pushing a model to the Hugging Face Hub, also with other weights: averaged ones, or those gathered from a sharded model."""

from __future__ import annotations

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from gmml_models.errors import WrongKeysError
from gmml_models.hub.folder import push_folder
from gmml_models.models.wrappers import plain_names

if TYPE_CHECKING:
    from torch import Tensor, nn


class Pushable(ABC):
    """Base class of models with ``save_pretrained``, which can be pushed to the Hub."""

    @abstractmethod
    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        about: Mapping[str, Any] | None = None,
        license: str | None = None,
        extras: Mapping[str, bytes] | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a folder."""

    def push_to_hub(
        self,
        repo: str,
        *,
        about: Mapping[str, Any] | None = None,
        license: str | None = None,
        extras: Mapping[str, bytes] | None = None,
        state_dict: Mapping[str, Tensor] | None = None,
        subfolder: str | None = None,
        branch: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        private: bool = False,
        token: str | bool | None = None,
        commit_message: str | None = None,
        message: str | None = None,
    ) -> str:
        """Push the model to the Hub as one commit, and return the address of the commit or pull request.

        Args:
            repo: "owner/name", created if it does not exist.
            about: as ``save_pretrained``.
            license: likewise.
            extras: likewise.
            state_dict: likewise.
            subfolder: the subfolder of the repository for these weights.
            branch: created if it does not exist; the main one by default.
            revision: another name for ``branch``.
            create_pr: open a pull request with the commit instead of changing the branch.
            private: whether a repository that is created here is private.
            token: as for the Hub client.
            commit_message: the commit message.
            message: another name for ``commit_message``.

        Raises:
            ValueError: two different branches or messages, or as in ``save_pretrained``.
            WeightsError: the Hub refuses or cannot be reached; nothing was committed.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, about=about, license=license, extras=extras, state_dict=state_dict)
            return push_folder(
                folder,
                repo,
                revision=_one("branch", branch, "revision", revision),
                subfolder=subfolder,
                create_pr=create_pr,
                private=private,
                token=token,
                message=_one("commit_message", commit_message, "message", message),
            )


def state_of(model: nn.Module, state_dict: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    """The tensors to save: the model's own, or others under its names, without the prefixes of wrappers.

    Args:
        model: the model, whose names and shapes the tensors must have.
        state_dict: averaged weights, or those gathered from a sharded model; the model's own by default.

    Raises:
        WrongKeysError: names or shapes that differ, or tensors that are sharded themselves.
    """
    own: dict[str, Tensor] = model.state_dict()
    if state_dict is None:
        return own
    given = plain_names(state_dict)
    given.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
    missing, surplus = sorted(set(own) - set(given)), sorted(set(given) - set(own))
    other = [name for name in sorted(set(own) & set(given)) if given[name].shape != own[name].shape]
    sharded = [name for name, tensor in given.items() if hasattr(tensor, "placements")]
    if missing or surplus or other:
        told = [
            f"{len(names)} {what} ({', '.join(names[:3])})"
            for what, names in (("missing", missing), ("surplus", surplus), ("of another shape", other))
            if names
        ]
        raise WrongKeysError(
            f"save_pretrained: the state_dict is not one of this {type(model).__name__}: {'; '.join(told)}. Give that of the whole "
            "model, with the names of model.state_dict()."
        )
    if sharded:
        raise WrongKeysError(
            f"save_pretrained: {sharded[0]} of the state_dict is sharded. Gather it on all processes: torch.distributed.checkpoint."
            "state_dict.get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))."
        )
    return {name: given[name].detach() if isinstance(given[name], torch.Tensor) else given[name] for name in own}


def part_of(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors of one part of a model, by their names in it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _one(name: str, value: str | None, other: str, same: str | None) -> str | None:
    if value is not None and same is not None and value != same:
        raise ValueError(f"push_to_hub: {name}={value!r} and {other}={same!r} mean the same thing. Give one of them.")
    return value if value is not None else same
