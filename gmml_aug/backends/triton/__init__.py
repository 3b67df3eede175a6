"""Plans and pixels by Triton kernels, on CUDA or in Triton's interpreter; Triton is not imported before the first use."""
