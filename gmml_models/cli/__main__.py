"""``python -m gmml_models.cli``: what torchrun starts."""

from gmml_models.cli import main

main()
