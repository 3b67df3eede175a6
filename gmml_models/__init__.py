"""A small model zoo beside `gmml_aug`, and the command line ``gmml``.

Importing this package imports nothing heavy: every module is imported where it is used.
"""

__all__ = ["__version__"]
__version__: str


def __getattr__(name: str) -> str:
    if name == "__version__":  # asked for by name only: gmml_aug imports torch
        from gmml_aug import __version__

        return __version__
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
