"""One training loop for all recipes, with processes, optimiser, checkpoints and the folder of a run."""
