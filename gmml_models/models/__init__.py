"""What is learnt: vision transformers by name, decoders and heads on them, and weights that were learnt before."""
