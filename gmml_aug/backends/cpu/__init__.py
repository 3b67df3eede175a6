"""Short cuts of the CPU."""
