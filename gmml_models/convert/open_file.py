"""Opens a file of weights: a checkpoint written by torch.save, safetensors, or a folder written by transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from gmml_models.convert.torch_checkpoint import read_checkpoint
from gmml_models.errors import NotThereError, UnreadableFileError
from gmml_models.hub.safetensors_check import MOST_BYTES, read_tensors

_FILES = ("model.safetensors", "pytorch_model.bin")
_JSON = {"config": "config.json", "preprocessor": "preprocessor_config.json"}
_MOST_JSON = 1 << 20


class Opened(NamedTuple):
    """A file's content.

    Attributes:
        path: the path of the file.
        checkpoint: the file's dict of networks, or of tensors.
        beside: the content of transformers' JSON files next to it, by ``config`` and ``preprocessor``.
    """

    path: Path
    checkpoint: Mapping[str, Any]
    beside: dict[str, dict[str, Any]]


def opened(path: Path, *, most_bytes: int = MOST_BYTES) -> Opened:
    """Read a file, without running any code in it.

    Args:
        path: the file, or a folder that transformers wrote.
        most_bytes: the size above which a file is refused.

    Raises:
        NotThereError: the file does not exist, or the folder holds no weights.
        UnreadableFileError: the file is something else, is damaged, or contains a function call.
    """
    path = path.expanduser()
    if path.is_dir():
        path = _in_folder(path)
    beside = {what: said for what, name in _JSON.items() if (said := _json(path.parent / name)) is not None}
    if "gmml" in beside.get("config", {}) and path.suffix == ".safetensors":
        raise UnreadableFileError(
            f"read_checkpoint: {path} is in a folder that gmml wrote. Load that: gmml_models.from_pretrained({str(path.parent)!r})."
        )
    with_pickle = not path.is_file() or not _is_safetensors(path)
    checkpoint: Mapping[str, Any] = (
        read_checkpoint(path, most_bytes=most_bytes) if with_pickle else read_tensors(path, most_bytes=most_bytes, finite=False)
    )
    return Opened(path, checkpoint, beside)


def _in_folder(folder: Path) -> Path:
    for name in _FILES:
        if (folder / name).is_file():
            return folder / name
        if (folder / f"{name}.index.json").is_file():
            raise UnreadableFileError(
                f"read_checkpoint: {folder} holds weights in several files. Join them: load the model with transformers, and "
                "save_pretrained(folder, max_shard_size='100GB')."
            )
    if (folder / ".metadata").is_file():
        raise UnreadableFileError(
            f"read_checkpoint: {folder} is a sharded checkpoint of torch.distributed. Join it: "
            "torch.distributed.checkpoint.format_utils.dcp_to_torch_save(folder, file)."
        )
    raise NotThereError(f"read_checkpoint: {folder} is a folder without {' or '.join(_FILES)}. Give the checkpoint file in it.")


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and head[:2] != b"PK" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _json(path: Path) -> dict[str, Any] | None:
    """Read a small JSON object; None if it cannot be read, because files beside a checkpoint may come from anybody."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_JSON:
            return None
        said = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None
