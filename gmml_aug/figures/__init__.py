"""Pictures of the effect of a corruption; matplotlib is imported when one is drawn."""
