"""Checkpoints of others, read without running anything, and turned into folders of weights."""
