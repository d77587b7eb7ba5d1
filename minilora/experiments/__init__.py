"""A fine-tuning, set up and measured; several side by side; many runs: for studies and commands."""
