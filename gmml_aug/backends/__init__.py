"""The backends that run a program: the reference on any device, the CPU core, Triton."""
