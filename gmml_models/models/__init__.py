"""The models: vision transformers by name, their decoders and heads, and pretrained weights."""
