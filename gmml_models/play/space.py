"""Writes the playground as a folder for a Hugging Face Space: a card, a program of two lines, and its requirements."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import gmml_aug
from gmml_models.errors import UsageError

GRADIO = "6.31.0"  # the version that the page was looked at with, in a browser
_PYTHON = "3.11"  # the Hub takes an older one by itself, which gmml does not run on

_README = f"""---
title: gmml playground
emoji: 🧩
colorFrom: gray
colorTo: blue
sdk: gradio
sdk_version: {GRADIO}
python_version: "{_PYTHON}"
app_file: app.py
license: apache-2.0
short_description: Corrupt a picture by groups of pixels, and see how
---

# gmml playground

Groups of connected pixels become noise, alien, grey or blurred content, as in Group Masked Model Learning. Choose a picture, a
preset, fills, ratios, sides, a budget and a key: the page shows what happened, which step did it, and the code that builds it.

`requirements.txt` names the release of gmml that wrote this folder. To run another version, put its address there instead.
"""

_APP = '''"""The playground of gmml as a Space, open to everybody who can see the Space."""

from gmml_models.cli.play import Play

raise SystemExit(Play(host="0.0.0.0", no_browser=True).run())
'''


def files() -> dict[str, str]:
    """Return the names of the folder's files, and their contents."""
    return {"README.md": _README, "app.py": _APP, "requirements.txt": f"gmml[play]=={gmml_aug.__version__}\n"}


def write_space(folder: Path) -> None:
    """Write the folder under another name and rename it, so that a partial folder is never visible.

    Args:
        folder: the folder, which must not exist yet or must be empty.

    Raises:
        UsageError: the folder is not empty or cannot be written; no partial folder is left.
    """
    whole = Path(os.path.realpath(folder))
    aside = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        if whole.exists() and not (whole.is_dir() and not any(whole.iterdir())):
            raise UsageError(
                f"gmml play: --space {folder} already exists and is not an empty folder. Give the name of a new folder."
            )
        aside.mkdir()
        for name, text in files().items():
            (aside / name).write_text(text, encoding="utf-8")
        aside.replace(whole)  # over an empty folder, too
    except OSError as error:
        raise UsageError(
            f"gmml play: --space {folder} could not be written: {error.strerror or error}. Give another place."
        ) from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
