"""The loop: devices, steps, checkpoints, what a person sees."""
