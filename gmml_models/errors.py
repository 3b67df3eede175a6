"""What a command says when it cannot do what was asked."""

from __future__ import annotations


class UsageError(Exception):
    """Bad arguments, nothing to work on, or nowhere to write: the message is for the user, and nothing was done."""
