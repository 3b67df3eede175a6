"""One loop for all trainings, and what it stands on: processes, optimiser, checkpoints, the folder of a run."""
