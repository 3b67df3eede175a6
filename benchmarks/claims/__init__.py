"""What the papers claim, measured again on photographs: rows, the runs that make them, and the table."""
