"""Plans and pixels by Triton kernels."""
