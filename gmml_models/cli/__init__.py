"""The command line ``gmml``."""

from gmml_models.cli.main import main

__all__ = ["main"]
