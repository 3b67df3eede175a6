"""Atomic writes: a file is complete or absent, even after a power cut.

The content is written under another name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file under another name, flush it and rename it; a symbolic link is kept.

    Args:
        path: the file, in a folder that exists.
        content: bytes, or text, which is written as UTF-8 with a newline at its end.

    Raises:
        OSError: the disk is full or cannot be written to; existing files are unchanged.
    """
    whole = Path(os.path.realpath(path))
    aside = whole.with_name(f"{whole.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content if isinstance(content, bytes) else f"{content}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        aside.replace(whole)
        flush_folder(whole.parent)
    finally:
        aside.unlink(missing_ok=True)


def flush_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, if the system supports it."""
    if os.name != "posix":  # Windows opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
