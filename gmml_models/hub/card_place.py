"""Decides where our card goes: README.md, or MODEL_CARD.md if somebody else wrote the existing README.md.

The config records the name and sha256 of the card that was written with it. A README.md with another hash was written or edited
by somebody: it is kept, in the folder and on the Hub, and our card becomes MODEL_CARD.md.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gmml_models.hub.config_check import CONFIG
from gmml_models.hub.safetensors_check import sha256_of

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CARD, BESIDE = "README.md", "MODEL_CARD.md"


def card_place(folder: Path) -> str:
    """A name for our card that does not replace anything that somebody wrote in a folder."""
    names = itertools.chain((CARD, BESIDE), (f"MODEL_CARD-{number}.md" for number in itertools.count(2)))
    return next(name for name in names if not os.path.lexists(folder / name) or is_ours(folder / name, folder / CONFIG))


def card_of(config: Mapping[str, Any]) -> str:
    """The name of the card that was written with a config."""
    told = config["gmml"].get("card")
    name = told.get("file") if isinstance(told, dict) else None
    return name if isinstance(name, str) and Path(name).name == name and name.endswith(".md") else CARD


@contextlib.contextmanager
def keeping_the_hubs_card(
    api: HfApi, repo: str, revision: str | None, folder: Path, config: Mapping[str, Any], subfolder: str | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folder to upload and the names of its cards; a README.md on the Hub that somebody wrote is not replaced by ours.

    Args:
        api: the client.
        repo: "owner/name", which exists.
        revision: the branch.
        folder: the folder to upload.
        config: the config of the folder.
        subfolder: the subfolder of the repository that it goes to.
    """
    names = sorted({name for name in (CARD, card_of(config)) if (folder / name).is_file()})
    ours = (folder / CARD).is_file() and is_ours(folder / CARD, folder / CONFIG)
    if not ours or not _a_person_wrote(api, repo, revision, subfolder):
        yield folder, names
        return
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        for path in folder.iterdir():
            if path.is_file():
                to = Path(place) / (BESIDE if path.name == CARD else path.name)
                try:
                    os.link(path, to)
                except OSError:
                    shutil.copyfile(path, to)
        yield Path(place), [BESIDE]


def _a_person_wrote(api: HfApi, repo: str, revision: str | None, subfolder: str | None) -> bool:
    """True if the repository has a README.md that is not the one recorded by the config beside it."""
    from huggingface_hub.errors import EntryNotFoundError, RemoteEntryNotFoundError

    def there(name: str) -> Path | None:
        try:
            return Path(api.hf_hub_download(repo, name, subfolder=subfolder, revision=revision))
        except RemoteEntryNotFoundError:
            return None
        except EntryNotFoundError:  # an empty repository has no revision to look into
            if api.list_repo_files(repo, revision=revision):
                raise
            return None

    card = there(CARD)
    if card is None:
        return False
    config = there(CONFIG)
    return config is None or not is_ours(card, config)


def is_ours(card: Path, config: Path) -> bool:
    """True if the config next to a card records its name and hash. The config may come from anybody."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
        told = json.loads(config.read_bytes())["gmml"]["card"]
        return bool(told["file"] == card.name and card.is_file() and told["sha256"] == sha256_of(card))
    return False
