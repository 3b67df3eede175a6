"""How pretraining was tuned at a laptop's scale: a declared search at a fixed number of views, on images held out from training."""
