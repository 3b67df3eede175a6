"""Other people's checkpoints, read without running any code and turned into folders of weights."""
