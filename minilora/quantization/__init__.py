"""Weights kept in few bits: what stands in the place of a matrix, and two ways of writing it."""
