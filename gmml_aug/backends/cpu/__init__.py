"""The CPU backend: a compiled core."""
