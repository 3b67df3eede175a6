"""Pictures of what a corruption did; matplotlib is imported when one is drawn."""
