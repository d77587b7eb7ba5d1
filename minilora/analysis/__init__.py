"""Numbers about weights, sizes and time."""
