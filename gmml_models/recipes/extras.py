"""What ``pip install 'gmml[train]'`` brings, asked for before any work."""

from __future__ import annotations

from importlib.util import find_spec

from gmml_models.errors import UsageError


def check_installed(who: str, **packages: str) -> None:
    """Refuse to begin where a package is missing that is needed at the end.

    Args:
        who: the command that speaks.
        packages: module name -> what it is called where it is installed from.

    Raises:
        UsageError: naming what is missing.
    """
    missing = [name for module, name in packages.items() if find_spec(module) is None]
    if missing:
        raise UsageError(f"{who} needs {' and '.join(missing)}. Install them: pip install 'gmml[train]'.")
