"""``python -m gmml_models.cli``, which torchrun starts."""

from gmml_models.cli import main

main()
