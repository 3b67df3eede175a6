"""Loads weights from a local folder or the Hugging Face Hub, in one layout, and checks them before they are opened.

A folder holds ``config.json``, ``README.md`` and safetensors files; the config records the sha256 and size of each. The Hub
client does not notice wrong bytes of the right size, so `read_tensors` compares the hash first. This detects damage; only a
revision or hash that the caller pins detects tampering. This module does not depend on any model.
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

_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<sub>[^@]+))?(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SUBFOLDER = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)


def fetch(
    source: str | os.PathLike[str],
    filename: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """Return the path of one file of a folder, downloading it first if necessary. The bytes of the file are not checked here.

    Args:
        source: a local folder, or a Hub name "org/name" or "org/name@revision", as accepted by
            `gmml_models.hub.source_name.resolved`; "hf-hub:org/name/sub" names a folder of a repository.
        filename: the file's name in the folder.
        revision: a branch, tag or commit. If it is a full commit (40 hex digits) that is in the cache, no request is made.
        subfolder: the subfolder of the folder or repository that holds the file.
        token: the token for the Hub client; by default the one that ``hf auth login`` stored.
        cache_dir: a cache folder to use instead of the Hub client's own.
        local_files_only: True to use only the cache, without any request.
        force_download: True to download again and replace a damaged file in the cache.

    Raises:
        ValueError: the name is neither a folder nor a Hub name, or there are two different revisions.
        WeightsError: the file cannot be fetched; the subclass says why.
    """
    if not re.fullmatch(r"\w[\w.-]*", filename, re.ASCII):
        raise ValueError(
            f"from_pretrained: filename={filename!r} is not a plain file name. Give a name such as 'model.safetensors'."
        )
    check_subfolder("from_pretrained", subfolder)
    where = resolved("from_pretrained", source)
    if isinstance(where, Path) and where.is_dir():
        where = where / subfolder if subfolder else where
        if revision is not None:
            raise ValueError(f"from_pretrained: {where} is a local folder and has no revision={revision!r}. Leave it out.")
        for path in (where / NEXT / filename, where / filename):  # the first: a write that was cut short
            if path.is_file():
                return path
        raise errors.NotThereError(f"from_pretrained: there is no file {filename} in the folder {where}.")
    if isinstance(where, Path) and where.is_file():
        raise errors.NotThereError(
            f"from_pretrained: {where} is a file, not a folder. Give its folder, if gmml wrote it; the encoder of somebody "
            f"else's file is gmml_models.encoder_from({os.fspath(where)!r})."
        )
    name = None if isinstance(where, Path) or where.startswith(".") else _HUB_NAME.fullmatch(where)
    # without the prefix of timm "a/b/c" is a path that is misspelt: the Hub is not asked for it
    if name is None or (name["sub"] and (os.fspath(source) == where or not _SUBFOLDER.fullmatch(name["sub"]))):
        raise errors.NotThereError(
            f"from_pretrained: {os.fspath(source)!r} is neither a folder that exists nor a Hub name. Give a folder, 'org/name' or "
            "'org/name@revision'; a folder of a repository is 'hf-hub:org/name/sub', or subfolder='sub' with 'org/name'."
        )
    if os.fspath(source) == where and (owner := Path(name["repo"]).parent).is_dir():
        raise errors.NotThereError(
            f"from_pretrained: there is no folder {where!r} in {os.fspath(owner)!r}, which is a folder here. Correct the path; a "
            f"repository of that name on the Hub is 'hf-hub:{where}'."
        )
    if name["sub"] and subfolder not in (None, name["sub"]):
        raise ValueError(f"from_pretrained: {where!r} names one subfolder and subfolder={subfolder!r} another. Give one of them.")
    if name["revision"] and revision not in (None, name["revision"]):
        raise ValueError(f"from_pretrained: {where!r} names one revision and revision={revision!r} another. Give one of them.")
    repo, subfolder, revision = name["repo"], subfolder or name["sub"], name["revision"] or revision
    from huggingface_hub import hf_hub_download

    place = f"{filename} of {repo}" + (f", folder {subfolder}" * bool(subfolder)) + (f" at revision {revision}" if revision else "")
    with _hub_errors("from_pretrained", place):
        return Path(
            hf_hub_download(
                repo,
                filename,
                subfolder=subfolder,
                revision=revision,
                token=token,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_files_only,
                force_download=force_download,
            )
        )


def commit_of(path: Path) -> str | None:
    """The commit in the path of a file in the client's cache, at which a repository's other files are then fetched."""
    places = [path.parent, *(one for one in path.parents if one.parent.name == "snapshots")]
    return next((place.name for place in places if re.fullmatch(r"[0-9a-f]{40}", place.name)), None)


def check_subfolder(who: str, subfolder: str | None) -> None:
    """Refuse anything that is not a plain relative folder.

    Raises:
        ValueError: the subfolder is not plain; the message says what is allowed.
    """
    if subfolder is not None and not _SUBFOLDER.fullmatch(subfolder):
        raise ValueError(
            f"{who}: subfolder={subfolder!r} is not a plain relative folder. Give, for example, subfolder='vit/small'."
        )


def read_config(source: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """Read and check the config of a folder; takes the options of `fetch`.

    Raises:
        WeightsError: as in `fetch`.
        UnreadableFileError: the file is not one of our configs.
    """
    return check_config(fetch(source, CONFIG, **options))


def expected_sha256(config: Mapping[str, Any], filename: str) -> str | None:
    """The hash that a config records for a file; None if the config does not list the file."""
    found = config.get("gmml", {}).get("files", {}).get(filename, {}).get("sha256")
    return None if found is None else str(found)


def push_folder(
    folder: str | os.PathLike[str],
    repo: str,
    *,
    revision: str | None = None,
    subfolder: str | None = None,
    create_pr: bool = False,
    private: bool = False,
    token: str | bool | None = None,
    message: str | None = None,
) -> str:
    """Upload a folder of `write_folder` to the Hub as one commit, after checking its hashes; returns the commit's URL.

    Only the config, the cards and the files that the config records (weights and extras) are sent. A README.md on the Hub that
    somebody wrote or edited is kept: ours is then MODEL_CARD.md.

    Args:
        folder: the folder.
        repo: "org/name", created if necessary.
        revision: a branch, created if necessary; the main one by default.
        subfolder: the subfolder of the repository for these weights.
        create_pr: True to open a pull request with the commit; its URL is returned.
        private: True if a repository that is created here is to be private.
        token: the token for the Hub client.
        message: the commit message.

    Raises:
        WeightsError: the upload failed; the subclass says why, and nothing was committed.
    """
    check_subfolder("push_to_hub", subfolder)
    folder = Path(folder)
    finish(folder)
    files = (config := read_config(folder))["gmml"]["files"]
    for name in files:
        check_sha256(folder / name, expected_sha256(config, name), who="push_to_hub")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub_errors("push_to_hub", repo):
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        with keeping_the_hubs_card(api, repo, revision, folder, config, subfolder) as (place, cards):
            done = api.upload_folder(
                repo_id=repo,
                folder_path=place,
                path_in_repo=subfolder,
                revision=revision,
                create_pr=create_pr,
                allow_patterns=[*files, *filter(is_extra, config["gmml"].get("extras") or ()), CONFIG, *cards],
                commit_message=message or f"Upload {config['architecture']} with gmml",
            )
        return str(done.pr_url if create_pr else done.commit_url)


@contextlib.contextmanager
def _hub_errors(who: str, place: str) -> Iterator[None]:
    """Convert exceptions of the Hub client to our errors."""
    try:
        yield
    except Exception as error:
        if (ours := errors.from_hub(error, f"{who}: {place}")) is error:
            raise
        raise ours from error
