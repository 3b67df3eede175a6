"""Weights that travel: one folder layout, from a local folder or the Hugging Face Hub, checked before they are opened.

A folder holds ``config.json``, ``README.md`` and safetensors files; the config records the sha256 and size of each. The Hub
client does not notice wrong bytes of the right size, so `read_tensors` compares the hash first. That shows damage; only a
revision or hash that the caller pins shows an exchange. This module knows no model.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gmml_models import errors
from gmml_models.hub.card_place import keeping_the_hubs_card
from gmml_models.hub.config_check import CONFIG, FORMAT_VERSION, check_config
from gmml_models.hub.safetensors_check import check_sha256, read_tensors
from gmml_models.hub.source_name import resolved
from gmml_models.hub.write import NEXT, finish, is_extra, write_folder

__all__ = [
    "FORMAT_VERSION",
    "check_sha256",
    "commit_of",
    "expected_sha256",
    "fetch",
    "push_folder",
    "read_config",
    "read_tensors",
    "write_folder",
]

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


def fetch(
    source: str | os.PathLike[str],
    filename: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The path of one file of a folder, downloaded first where that is needed. Its bytes are not checked here.

    Args:
        source: a local folder, or a Hub name "org/name" or "org/name@revision", as `gmml_models.hub.source_name.resolved` takes it.
        filename: the file's name in it.
        revision: branch, tag or commit. A full commit (40 hex digits) that is in the cache makes no request.
        token: as the Hub client takes it; by default the one that ``hf auth login`` stored.
        cache_dir: in place of the Hub client's own cache.
        local_files_only: take it from the cache, make no request.
        force_download: replace what the cache holds, to repair it.

    Raises:
        ValueError: a name that can be neither, or two different revisions.
        WeightsError: in one of its subclasses, the file cannot be had.
    """
    if not re.fullmatch(r"\w[\w.-]*", filename, re.ASCII):
        raise ValueError(f"fetch: filename={filename!r} is not a plain file name. Give one like 'model.safetensors'.")
    where = resolved("fetch", source)
    if isinstance(where, Path) and where.is_dir():
        if revision is not None:
            raise ValueError(f"fetch: {where} is a local folder and has no revision={revision!r}. Leave it out.")
        for path in (where / NEXT / filename, where / filename):  # the first: a write that was cut short
            if path.is_file():
                return path
        raise errors.NotThereError(f"fetch: no file {filename} in the folder {where}.")
    if isinstance(where, Path) and where.is_file():
        raise errors.NotThereError(
            f"fetch: {where} is a file, not a folder. Give the folder that it lies in, if gmml wrote that; the encoder of somebody "
            f"else's file is gmml_models.encoder_from({os.fspath(where)!r})."
        )
    if isinstance(where, Path) or not _HUB_NAME.fullmatch(where) or where.startswith("."):
        raise errors.NotThereError(
            f"fetch: {os.fspath(source)!r} is neither a folder that exists nor a Hub name. Give a folder, 'org/name' or "
            "'org/name@revision'."
        )
    repo, _, named = where.partition("@")
    if named and revision not in (None, named):
        raise ValueError(f"fetch: {where!r} names one revision and revision={revision!r} another. Give one of them.")
    revision = named or revision
    from huggingface_hub import hf_hub_download

    place = f"{filename} of {repo}" + (f" at revision {revision}" if revision else "")
    with _hub_errors("fetch", place):
        return Path(
            hf_hub_download(
                repo,
                filename,
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )


def commit_of(path: Path) -> str | None:
    """The commit in the path of a file that the client downloaded into its cache: fetch a repository's other files at it."""
    found = re.fullmatch(r"[0-9a-f]{40}", path.parent.name)
    return found and found[0]


def read_config(source: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """The config of a folder, checked; takes the options of `fetch`.

    Raises:
        WeightsError: as in `fetch`.
        UnreadableFileError: not a config of ours.
    """
    return check_config(fetch(source, CONFIG, **options))


def expected_sha256(config: Mapping[str, Any], filename: str) -> str | None:
    """The hash that a config records for a file; None where it does not know the file."""
    found = config.get("gmml", {}).get("files", {}).get(filename, {}).get("sha256")
    return None if found is None else str(found)


def push_folder(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    revision: str | None = None,
    private: bool = False,
    token: str | bool | None = None,
    message: str | None = None,
) -> str:
    """Put a folder that `write_folder` wrote on the Hub, as one commit, after its hashes were checked; the commit's address.

    Nothing but the config, the cards and the files that the config records, weights and extras, is sent. A README.md on the Hub
    that a person wrote or changed is kept: ours is MODEL_CARD.md then.

    Args:
        folder: the folder.
        repo: "org/name", made where it is missing.
        revision: a branch, made where it is missing; the main one by default.
        private: whether a repository that is made here is private.
        token: as the Hub client takes it.
        message: of the commit.

    Raises:
        WeightsError: in one of its subclasses; nothing was committed.
    """
    folder = Path(folder)
    finish(folder)
    files = (config := read_config(folder))["gmml"]["files"]
    for name in files:
        check_sha256(folder / name, expected_sha256(config, name), who="push_folder")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub_errors("push_folder", repo):
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        with keeping_the_hubs_card(api, repo, revision, folder, config) as (place, cards):
            done = api.upload_folder(
                repo_id=repo,
                folder_path=place,
                revision=revision,
                allow_patterns=[*files, *filter(is_extra, config["gmml"].get("extras") or ()), CONFIG, *cards],
                commit_message=message or f"Upload {config['architecture']} with gmml",
            )
        return str(done.commit_url)


@contextlib.contextmanager
def _hub_errors(who: str, place: str) -> Iterator[None]:
    """Turn what the Hub client raises into our errors."""
    try:
        yield
    except Exception as error:
        if (ours := errors.from_hub(error, f"{who}: {place}")) is error:
            raise
        raise ours from error
