"""The reference backend, which runs on any device, as one graph, and is differentiable; the others are tested against it."""
