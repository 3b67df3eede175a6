"""The truth: any device, one graph, differentiable."""
