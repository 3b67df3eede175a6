"""Measures how fast corruption is, compared with a copy of the batch and with other libraries."""
