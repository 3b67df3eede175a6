"""A file is whole or it is not there: written aside, then renamed."""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file aside and rename it; a link stays a link.

    Args:
        path: in a folder that exists.
        content: bytes, or text, which is written as UTF-8 with a line's end behind it.

    Raises:
        OSError: no room or no permission; what was there is as it was.
    """
    whole = Path(os.path.realpath(path))
    aside = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        aside.write_bytes(content if isinstance(content, bytes) else f"{content}\n".encode())
        aside.replace(whole)
    finally:
        aside.unlink(missing_ok=True)
