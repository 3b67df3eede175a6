"""Adapters: the same corruptions in the training loops of other libraries."""
