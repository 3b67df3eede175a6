"""The kernels; imported only when they are first used."""
