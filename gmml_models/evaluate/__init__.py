"""Measures how good features are: k-NN, a linear probe, metrics, and the table of results."""
