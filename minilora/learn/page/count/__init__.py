"""The counter: how many numbers train, of a named model or of matrices of any size."""
