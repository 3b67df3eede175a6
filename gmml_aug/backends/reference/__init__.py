"""The reference: any device, one graph, differentiable; the truth that the other backends are held against."""
