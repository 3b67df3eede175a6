"""The same corruptions in other people's loops."""
