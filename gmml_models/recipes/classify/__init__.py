"""Classifiers: heads, fine-tuning, features, measures."""
