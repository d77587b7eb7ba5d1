"""How a figure of ours looks."""
