"""How fast corruption is, beside a copy of the batch and beside peers."""
