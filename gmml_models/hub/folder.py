"""Weights that travel: one folder layout, from a local folder or the Hugging Face Hub, checked before they are opened.

A folder holds ``config.json``, ``README.md`` and safetensors files; the config records the sha256 and size of each. The Hub
client does not notice wrong bytes of the right size, so `read_tensors` compares the hash first. That shows damage; only a
revision or hash that the caller pins shows an exchange. This module knows no model.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from gmml_models import errors
from gmml_models.hub.safetensors_check import (
    SHA256,
    check_header,
    check_sha256,
    looks_like,
    no_constant,
    read_tensors,
    regular_size,
    sha256_of,
)

if TYPE_CHECKING:
    from torch import Tensor

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

FORMAT_VERSION = 1

CONFIG, _CARD, _NEXT = "config.json", "README.md", ".gmml-next"
_MOST_BYTES = 1 << 20
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_WEIGHTS = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)


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
        source: a local folder, or a Hub name "org/name" or "org/name@revision".
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
    if os.fspath(source) and Path(source).is_dir():
        if revision is not None:
            raise ValueError(f"fetch: {os.fspath(source)} is a local folder and has no revision={revision!r}. Leave it out.")
        for path in (Path(source, _NEXT, filename), Path(source, filename)):  # the first: a write that was cut short
            if path.is_file():
                return path
        raise errors.NotThereError(f"fetch: no file {filename} in the folder {os.fspath(source)}.")
    if not isinstance(source, str) or not _HUB_NAME.fullmatch(source) or source.startswith("."):
        raise errors.NotThereError(
            f"fetch: {os.fspath(source)!r} is neither a folder that exists nor a Hub name. Give a folder, 'org/name' or "
            "'org/name@revision'."
        )
    repo, _, named = source.partition("@")
    if named and revision not in (None, named):
        raise ValueError(f"fetch: {source!r} names one revision and revision={revision!r} another. Give one of them.")
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
    """The commit that a fetched file belongs to: fetch a folder's other files at it. None for local folders."""
    found = re.fullmatch(r"[0-9a-f]{40}", path.parent.name)
    return found and found[0]


def read_config(source: str | os.PathLike[str], **options: Any) -> dict[str, Any]:
    """The config of a folder, checked; takes the options of `fetch`.

    Raises:
        WeightsError: as `fetch` does.
        UnreadableFileError: not a config of ours.
    """
    path = fetch(source, CONFIG, **options)

    def refuse(problem: str) -> NoReturn:
        raise errors.UnreadableFileError(f"read_config: {path} {problem}")

    if (size := regular_size(path, "read_config")) >= _MOST_BYTES:
        refuse(f"holds {size} bytes, allowed are fewer than {_MOST_BYTES}.")
    try:
        config = json.loads(path.read_bytes(), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        refuse(f"is not JSON ({error}); it looks like {looks_like(path)}.")
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        refuse("is not a JSON object with an 'architecture'.")
    if not isinstance(config.get("gmml"), dict):
        refuse("has no 'gmml' part: it was not written by gmml_models. Build its encoder with timm.create_model instead.")
    if (version := config.get("format_version")) != FORMAT_VERSION or isinstance(version, bool):
        refuse(f"has format_version {version!r}, this gmml reads {FORMAT_VERSION}. A newer gmml may read it.")
    files = config["gmml"].get("files")
    if not isinstance(files, dict) or not files:
        refuse("records no files under gmml.files.")
    for name, about in files.items():
        sound = _WEIGHTS.fullmatch(name) and isinstance(about, dict) and type(about.get("size")) is int
        if not sound or not isinstance(about.get("sha256"), str) or not SHA256.fullmatch(about["sha256"]):
            refuse(f"records {name!r} under gmml.files without a sha256 of 64 hex digits and a size, or its name is no file's.")
    return config


def expected_sha256(config: Mapping[str, Any], filename: str) -> str | None:
    """The hash that a config records for a file; None where it does not know the file."""
    found = config.get("gmml", {}).get("files", {}).get(filename, {}).get("sha256")
    return None if found is None else str(found)


def write_folder(
    folder: str | os.PathLike[str],
    *,
    tensors: Mapping[str, Mapping[str, Tensor]],
    config: Mapping[str, Any],
    card: str | Callable[[Mapping[str, Any]], str],
) -> None:
    """Write a folder that `read_config` and `read_tensors` take, whole or not at all.

    Everything is written aside, made one by a rename, then moved into place, the config last. Whoever reads through `fetch` sees
    the old files until that rename and the new ones after it, also where the writer was killed in between. One writer at a time.

    Args:
        folder: made where it is missing; other files in it are left alone.
        tensors: the tensors of each file, by file name.
        config: what goes into ``config.json``, completed by the hashes and sizes of the files.
        card: the text of ``README.md``, or what makes it from the completed config.

    Raises:
        ValueError: nothing to write, weights that are not finite, or a config that JSON cannot say.
        UnreadableFileError: `read_config` or `read_tensors` would refuse it.
        OSError: no room or no permission; the old files are as they were.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if not tensors or not all(_WEIGHTS.fullmatch(name) and tensors[name] for name in tensors):
        raise ValueError(f"write_folder: files {sorted(tensors)}; give plain names that end in .safetensors, with tensors.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _finish(folder)
    for left in folder.glob(".gmml-aside-*"):  # of a writer that was killed
        if time.time() - left.stat().st_mtime > 3600:
            shutil.rmtree(left, ignore_errors=True)
    aside = folder / f".gmml-aside-{secrets.token_hex(4)}"
    aside.mkdir()
    try:
        files = {}
        for name, each in tensors.items():
            wrong = [key for key, tensor in each.items() if not torch.isfinite(tensor).all()]
            if wrong:
                raise ValueError(f"write_folder: {name} would hold weights that are not finite: {', '.join(sorted(wrong)[:5])}.")
            # a copy of each: tied or sliced tensors share storage, which safetensors refuses
            own = {key: tensor.detach().to("cpu", copy=True).contiguous() for key, tensor in each.items()}
            try:
                save_file(own, aside / name, metadata={"format": "pt"})
            except SafetensorError as error:
                raise OSError(f"write_folder: cannot write {name} into {folder}: {error}") from error
            check_header(aside / name, who="write_folder")
            files[name] = {"sha256": sha256_of(aside / name), "size": (aside / name).stat().st_size}
        whole = {**config, "format_version": FORMAT_VERSION, "gmml": {**config.get("gmml", {}), "files": files}}
        text = json.dumps(whole, indent=2, sort_keys=True, allow_nan=False) + "\n"
        (aside / CONFIG).write_text(text, encoding="utf-8", newline="\n")
        (aside / _CARD).write_text(card if isinstance(card, str) else card(whole), encoding="utf-8", newline="\n")
        read_config(aside)
        for path in aside.iterdir():  # on the disk before the rename: also a power cut leaves one set or the other
            path.chmod(0o644)
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        aside.replace(folder / _NEXT)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    _finish(folder)


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

    Nothing but the config, the card and the files that the config records is sent.

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
    _finish(folder)
    files = (config := read_config(folder))["gmml"]["files"]
    for name in files:
        check_sha256(folder / name, expected_sha256(config, name), who="push_folder")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with _hub_errors("push_folder", repo):
        api.create_repo(repo, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            allow_patterns=[*files, CONFIG, _CARD],
            commit_message=message or f"Upload {config['architecture']} with gmml",
        )
        return str(done.commit_url)


def _finish(folder: Path) -> None:
    """Move a written set into place, the config last; each step can be the last one of a killed writer."""
    written = folder / _NEXT
    if not written.is_dir():
        return
    kept = {path.name for path in written.iterdir()}
    if CONFIG in kept:
        for name in kept - {CONFIG}:
            (written / name).replace(folder / name)
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):  # the old config may be anybody's
            new = json.loads((written / CONFIG).read_bytes())["gmml"]["files"]
            for name in json.loads((folder / CONFIG).read_bytes())["gmml"]["files"]:
                if _WEIGHTS.fullmatch(name) and name not in new:
                    (folder / name).unlink(missing_ok=True)
        (written / CONFIG).replace(folder / CONFIG)
    shutil.rmtree(written)


@contextlib.contextmanager
def _hub_errors(who: str, place: str) -> Iterator[None]:
    """Turn what the Hub client raises into our errors."""
    try:
        yield
    except Exception as error:
        if (ours := errors.from_hub(error, f"{who}: {place}")) is error:
            raise
        raise ours from error
