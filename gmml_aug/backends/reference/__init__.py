"""The reference: any device, one graph, differentiable; the other backends are tested against it."""
