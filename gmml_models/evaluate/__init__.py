"""What features are worth: neighbours, a linear probe, measures, and the table of them."""
