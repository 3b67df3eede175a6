"""Loads images from any source, up to the views on the device."""
