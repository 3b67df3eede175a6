"""Images: from any source to views on the device."""
