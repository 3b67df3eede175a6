"""The registry of weights, with the content of each folder and the location of its files.

A name is ``gmml_<encoder>.<data>``, for example ``gmml_vit_micro_patch8_64.openclipart``; without the part after the dot it names
an architecture. Our small weights are in ``gmml_models/weights/NAME/``, in the layout of the Hub, so that they work without a
network; a registry entry names a repository only once somebody has published it, with a pinned commit and hashes.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmml_models.errors import NotThereError
from gmml_models.hub.source_name import resolved

if TYPE_CHECKING:
    from gmml_models.models.pretrained import WeightsSource

WEIGHTS = Path(__file__).parents[1] / "weights"
PREFIX = "gmml_"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One set of weights.

    Args:
        name: ``gmml_<encoder>.<data>``.
        folder: the path of the weights in the package, or None.
        repo: the Hub's ``owner/name`` once it is published, or None.
        revision: the commit that ``repo`` is pinned to.
        sha256: maps file names to the hashes to check.
        about: the folder's config.json, which the table and the card show.
    """

    name: str
    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


_PUBLISHED: tuple[Entry, ...] = ()  # entries with repo, revision and sha256, once there are any


def registry(weights: Path | None = None) -> dict[str, Entry]:
    """All entries by name: the published ones, and those that come with the package.

    Args:
        weights: the folder of bundled weights, with one folder per name; by default that of the package.
    """
    found = {entry.name: entry for entry in _PUBLISHED}
    for config in sorted((weights or WEIGHTS).glob("*/config.json")):
        about = json.loads(config.read_text(encoding="utf-8"))
        pins = {name: str(file["sha256"]) for name, file in about.get("gmml", {}).get("files", {}).items()}
        found[config.parent.name] = Entry(name=config.parent.name, folder=config.parent, sha256=pins, about=about)
    return found


def list_models(pattern: str = "*") -> list[str]:
    """The names of all available weights, sorted.

    Args:
        pattern: a shell pattern, for example ``"*caltech*"``.
    """
    from fnmatch import fnmatch

    return sorted(name for name in registry() if fnmatch(name, pattern))


def located(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: str | Mapping[str, str] | None = None,
    **options: Any,
) -> WeightsSource:
    """Return the source of a folder, a Hub repository or a name in the registry; a registry name has its own pins.

    Args:
        source: a local folder, ``owner/name`` on the Hub, or a name from `list_models`.
        revision: a revision to use instead of the registry's.
        sha256: a hash to use instead of the registry's.
        options: of `gmml_models.models.pretrained.WeightsSource`.

    Raises:
        TypeError: ``source`` is neither a string nor a path.
        NotThereError: a word that is neither a folder nor a name of the registry; the message lists those that are.
    """
    from gmml_models.models.pretrained import WeightsSource

    where = resolved("from_pretrained", source)
    entry = registry().get(str(source))
    if entry is not None:
        source = entry.folder or entry.repo or source
        revision, sha256 = revision or entry.revision, sha256 or (entry.sha256 if options.get("verify", True) else None)
    elif isinstance(where, str) and where.startswith(PREFIX) and "/" not in where:
        raise NotThereError(f"from_pretrained: no weights named {where!r}, and no such folder. {known(where)}")
    elif isinstance(where, str) and where == source and re.fullmatch(r"[\w.-]*\w", where, re.ASCII):
        raise NotThereError(
            f"from_pretrained: {where!r} is neither a folder that exists nor a Hub name, owner/name, nor the name of weights of "
            f"ours. {known(where)}{_by_shape(where)}"
        )
    return WeightsSource(name=source, revision=revision, sha256=sha256, **options)


def _by_shape(name: str) -> str:
    """What to do with the name of an encoder, which says no weights of ours."""
    from timm import is_model

    from gmml_models.models.encoders import SHORT_NAMES

    untrained = f" An encoder of that name without weights: gmml_models.build_encoder({name!r})"
    if name in SHORT_NAMES:
        return f"{untrained}."
    return f"{untrained}; with timm's: timm.create_model({name!r}, pretrained=True)." if is_model(name) else ""


def known(name: str) -> str:
    """List the existing names, with those most similar to the given one first."""
    names = registry()
    close = difflib.get_close_matches(name, names)
    return f"There are: {', '.join(sorted(close or names))}." if names else "The registry is empty so far."
