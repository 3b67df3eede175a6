"""Weights that travel: a folder of files, checked before they are opened, to and from the Hugging Face Hub."""
