"""Adapters once they are trained: several made into one, taken out of a model, one for each row."""
