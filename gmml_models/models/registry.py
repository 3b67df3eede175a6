"""The registry: which weights there are, what each folder holds, and models by name.

A name is ``gmml_<encoder>.<data>``, for example ``gmml_vit_micro_patch8_64.caltech101``; without the part behind the point it names
an architecture. Small weights of ours lie in ``gmml_models/weights/NAME/``, in the layout of the Hub, so that they work with no
network; a registry entry names a repository only once somebody has published it, with a pinned commit and hashes.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gmml_models.errors import NotThereError

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from gmml_models.models.autoencoder import GMMLAutoencoder
    from gmml_models.models.pretrained import WeightsSource

WEIGHTS = Path(__file__).parents[1] / "weights"
_PREFIX = "gmml_"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One set of weights.

    Args:
        name: ``gmml_<encoder>.<data>``.
        folder: where it lies in the package, or None.
        repo: the Hub's ``owner/name`` once it is published, or None.
        revision: the commit that ``repo`` is pinned to.
        sha256: file name -> hash, the pins that are checked.
        about: the folder's config.json: what the table and the card show.
    """

    name: str
    folder: Path | None = None
    repo: str | None = None
    revision: str | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)


_PUBLISHED: tuple[Entry, ...] = ()  # entries with repo, revision and sha256, once there are any


def registry(weights: Path | None = None) -> dict[str, Entry]:
    """All entries by name: the published ones, and those that came with the package.

    Args:
        weights: the folder of bundled weights, one folder a name; that of the package by default.
    """
    found = {entry.name: entry for entry in _PUBLISHED}
    for config in sorted((weights or WEIGHTS).glob("*/config.json")):
        about = json.loads(config.read_text(encoding="utf-8"))
        pins = {name: str(file["sha256"]) for name, file in about.get("gmml", {}).get("files", {}).items()}
        found[config.parent.name] = Entry(name=config.parent.name, folder=config.parent, sha256=pins, about=about)
    return found


def list_models(pattern: str = "*") -> list[str]:
    """Names of all weights that can be had, sorted; empty as long as there are none.

    Args:
        pattern: as in the shell, for example ``"*caltech*"``.
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
    """Where the files of a folder, a Hub repository or a name of the registry are; a name brings its own pins.

    Args:
        source: a local folder, ``owner/name`` on the Hub, or a name that `list_models` gives.
        revision: instead of the registry's.
        sha256: instead of the registry's.
        options: of `gmml_models.models.pretrained.WeightsSource`.
    """
    from gmml_models.models.pretrained import WeightsSource

    entry = registry().get(str(source))
    if entry is not None:
        source = entry.folder or entry.repo or source
        revision, sha256 = revision or entry.revision, sha256 or entry.sha256
    return WeightsSource(name=source, revision=revision, sha256=sha256, **options)


def from_pretrained(
    source: str | os.PathLike[str],
    *,
    revision: str | None = None,
    sha256: str | Mapping[str, str] | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
    **options: Any,
) -> VisionTransformer:
    """The plain timm encoder of a folder, a Hub repository or a name of the registry, in evaluation mode, float32.

    Args:
        source: a local folder, ``owner/name`` on the Hub, or a name that `list_models` gives.
        revision: branch, tag or commit.
        sha256: of ``model.safetensors``, checked instead of the folder's own record.
        token: for private and gated repositories; the Hub client's own by default.
        cache_dir: of the Hub client.
        local_files_only: never ask the network.
        force_download: replace what the cache holds, to repair it.
        options: of timm, for another use of the encoder: ``num_classes``, ``img_size``, ``in_chans``, ``drop_path_rate``, ...; timm
            then resamples position embeddings and adapts the first layer.

    Raises:
        WeightsError: its subclasses tell apart: not there, no access, no network, wrong bytes, unreadable, wrong keys.
    """
    import timm

    from gmml_models.models.pretrained import ENCODER, load_encoder

    where = located(
        source,
        revision=revision,
        sha256=sha256,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    ).pinned()
    config = where.config()
    if not options:
        return load_encoder(where, config)
    where.tensors(ENCODER, config)  # every check, before timm opens the same file
    folder = where.file(ENCODER).parent
    encoder = cast("VisionTransformer", timm.create_model(f"local-dir:{folder}", pretrained=True, **options))
    return encoder.eval()


def create_model(name: str, *, pretrained: bool = False, **options: Any) -> GMMLAutoencoder:
    """A `GMMLAutoencoder` by name; its ``encoder`` is the plain timm model.

    Args:
        name: ``gmml_<encoder>``, or ``gmml_<encoder>.<data>`` for weights of the registry.
        pretrained: load the weights; otherwise they are random.
        options: of `GMMLAutoencoder`, without ``pretrained`` only.

    Raises:
        NotThereError: no such weights; the message lists those there are.
        ValueError: the name does not begin with ``gmml_``, or options came with ``pretrained``.
    """
    from gmml_models.models.autoencoder import GMMLAutoencoder

    if not name.startswith(_PREFIX):
        raise ValueError(f"create_model: {name!r} does not begin with {_PREFIX!r}. For an encoder alone use timm.create_model.")
    if not pretrained:
        return GMMLAutoencoder(name.removeprefix(_PREFIX).split(".")[0], **options)
    entries = registry()
    entry = entries.get(name)
    if entry is None:
        close = difflib.get_close_matches(name, entries)
        known = f"There are: {', '.join(sorted(close or entries))}." if entries else "The registry is empty so far."
        raise NotThereError(
            f"create_model: no weights named {name!r}. {known} For weights of others use GMMLAutoencoder.from_pretrained(folder or "
            "Hub name); for random ones pretrained=False."
        )
    if options:
        raise ValueError(
            f"create_model: options {sorted(options)} came with pretrained=True, whose config says everything. Leave them out, or "
            "load the encoder for another use: gmml_models.from_pretrained(name, num_classes=10)."
        )
    where = entry.folder if entry.folder is not None else entry.repo
    assert where is not None
    return GMMLAutoencoder.from_pretrained(where, revision=entry.revision, sha256=entry.sha256)
