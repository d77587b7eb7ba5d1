"""Exercises and their checkers."""
