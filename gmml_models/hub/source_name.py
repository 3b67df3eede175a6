"""Interprets the source given to a loader: a folder, or a name on the Hub, in the spellings that users and timm use."""

from __future__ import annotations

import os
from pathlib import Path

_HUB, _FOLDER = ("hf-hub:", "hf_hub:"), "local-dir:"


def resolved(who: str, source: object) -> Path | str:
    """Return a path for a local folder, or a str for a name that can only be on the Hub.

    Args:
        who: the name of the caller, for errors.
        source: a folder, also with ``~`` or timm's ``local-dir:`` in front; or ``owner/name``; or ``hf-hub:owner/name``, which
            means the Hub even if a folder of that name exists.

    Raises:
        TypeError: the source is neither a string nor a path.
    """
    if not isinstance(source, (str, os.PathLike)) or not isinstance(os.fspath(source), str):
        raise TypeError(
            f"{who}: source is a {type(source).__name__}. Give a folder, 'owner/name' on the Hub, or a name from "
            "gmml_models.list_models()."
        )
    text = os.fspath(source)
    for prefix in _HUB:
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    folder = Path(text.removeprefix(_FOLDER)).expanduser()
    if text.startswith((_FOLDER, "~")) or not isinstance(source, str) or (text and folder.exists()):
        return folder
    return text
