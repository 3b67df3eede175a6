"""Folders of weights, checked before they are opened, to and from the Hugging Face Hub."""
