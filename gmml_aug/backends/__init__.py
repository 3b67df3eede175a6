"""Who carries a program out: the reference on any device, the CPU, Triton."""
