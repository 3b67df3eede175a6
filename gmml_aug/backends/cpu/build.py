"""Compile the core, while a wheel is built or when you run ``python -m gmml_aug.backends.cpu.build``.

This module uses only the standard library, because torch is not installed when a wheel is built.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent / "core"
# one product rounded, then one sum, on every machine: all variants give the same bits
FLAGS = ("-std=c11", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
_V2 = ("-mssse3", "-msse4.1", "-msse4.2", "-mpopcnt")
_V3 = (*_V2, "-mavx2", "-mbmi", "-mbmi2", "-mlzcnt")
_V4 = (*_V3, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512")
VARIANTS = {"v2": _V2, "v3": _V3, "v4": _V4}  # of x86-64, as its levels are called


def machine() -> str:
    """The processor to compile for."""
    name = sysconfig.get_platform().replace("-", "_").split("_", 1)[-1]
    for known in ("x86_64", "amd64", "arm64", "aarch64"):
        if name.lower().endswith(known):
            return {"amd64": "x86_64", "aarch64": "arm64"}.get(known, known)
    return platform.machine().lower()


def files() -> dict[str, tuple[str, ...]]:
    """The files of the core for this machine, and the flags of each."""
    if machine() == "x86_64":
        return {f"gmml_core.x86_64_{level}.so": flags for level, flags in VARIANTS.items()}
    return {f"gmml_core.{machine()}.so": ()}


def sources_hash() -> int:
    """A 64-bit hash of the sources that a core was compiled from."""
    digest = hashlib.sha256()
    for source in sorted(FOLDER.glob("*.[ch]")):
        digest.update(source.name.encode() + source.read_bytes())
    return int.from_bytes(digest.digest()[:8], "big")


def compiler() -> list[str] | None:
    """The C compiler and its first arguments: ``CC``, the one that Python was built with, or the first one that is found."""
    for command in (os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"):
        words = shlex.split(command or "")
        if words and shutil.which(words[0]):
            return words
    return None


def compile_core(target: Path, extra: tuple[str, ...] = ()) -> list[Path]:
    """Compile all files of the core for this machine.

    Args:
        target: the folder to write to.
        extra: more flags, for example those of a sanitizer.

    Returns:
        The files.

    Raises:
        RuntimeError: there is no compiler, or it failed; the message contains its output.
    """
    command = compiler()
    if command is None:
        raise RuntimeError("no C compiler was found: install gcc or clang, or name one in CC")
    made = []
    for name, flags in files().items():
        with tempfile.TemporaryDirectory(dir=target) as aside:
            path = Path(aside) / name
            sources = [str(source) for source in sorted(FOLDER.glob("*.c"))]
            arch = shlex.split(os.environ.get("ARCHFLAGS", ""))
            words = [
                *command,
                *arch,
                *FLAGS,
                *flags,
                *extra,
                f"-DGMML_SOURCES={sources_hash()}ull",
                *sources,
                "-o",
                str(path),
                "-lm",
            ]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(f"{shlex.join(words)} failed:\n{done.stderr.strip()}")
            made.append(path.replace(target / name))  # renamed: a process may be using the old one
    return made


def main() -> None:
    """Compile the core into the package."""
    try:
        made = compile_core(FOLDER)
    except RuntimeError as error:
        sys.exit(f"gmml_aug: {error}")
    print("\n".join(str(path) for path in made))


if __name__ == "__main__":
    main()
