"""The CPU's backend: a compiled core."""
