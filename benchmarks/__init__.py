"""Speed, measured: every figure as a ratio to something else in the same run."""
