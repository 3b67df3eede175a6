"""What a corruption did, as a picture; matplotlib is imported when it is drawn."""
