"""What goes into a group of pixels."""
