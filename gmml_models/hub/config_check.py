"""The config.json of a folder of weights: the required content, checked before anything else in the folder is opened."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from gmml_models import errors
from gmml_models.hub.safetensors_check import SHA256, looks_like, no_constant, regular_size

FORMAT_VERSION = 1
CONFIG = "config.json"
WEIGHTS = re.compile(r"\w[\w.-]*\.safetensors", re.ASCII)
_MOST_BYTES = 1 << 20


def check_config(path: Path) -> dict[str, Any]:
    """Read and check an existing config.json.

    Raises:
        NotThereError: the file does not exist.
        UnreadableFileError: the file is not one of our configs.
    """

    def refuse(problem: str) -> NoReturn:
        raise errors.UnreadableFileError(f"read_config: {path} {problem}")

    if (size := regular_size(path, "read_config")) >= _MOST_BYTES:
        refuse(f"holds {size} bytes, but fewer than {_MOST_BYTES} are allowed.")
    try:
        config = json.loads(path.read_bytes(), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        refuse(f"is not JSON ({error}); it looks like {looks_like(path)}.")
    if not isinstance(config, dict) or not isinstance(config.get("architecture"), str):
        weights = Path(path).parent / "weights"
        of_a_run = isinstance(config, dict) and "kind" in config and (weights / CONFIG).is_file()
        refuse(
            f"describes a run. Its weights are in {weights}: give that."
            if of_a_run
            else "is not a JSON object with an 'architecture'."
        )
    if not isinstance(config.get("gmml"), dict):
        refuse("has no 'gmml' part: it was not written by gmml_models. Others' weights: gmml_models.encoder_from(folder).")
    if (version := config.get("format_version")) != FORMAT_VERSION or isinstance(version, bool):
        refuse(f"has format_version {version!r}, this gmml reads {FORMAT_VERSION}. A newer gmml may read it.")
    files = config["gmml"].get("files")
    if not isinstance(files, dict) or not files:
        refuse("records no files under gmml.files.")
    for name, about in files.items():
        sound = WEIGHTS.fullmatch(name) and isinstance(about, dict) and type(about.get("size")) is int
        if not sound or not isinstance(about.get("sha256"), str) or not SHA256.fullmatch(about["sha256"]):
            refuse(
                f"records {name!r} under gmml.files without a sha256 of 64 hex digits and a size, or its name is not a file name."
            )
    return config
