"""Plans and pixels by Triton kernels, on CUDA, or by Triton's interpreter; no Triton is imported before the first use."""
