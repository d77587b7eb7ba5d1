"""One loop for every method, and how good a model is."""
