"""The training loop of all recipes, and what it needs: processes, optimiser, checkpoints and the folder of a run."""
