"""One training loop for all recipes, and what it needs: processes, optimiser, checkpoints, the folder of a run."""
