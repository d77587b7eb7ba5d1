"""The exercises of the lessons, and their checkers."""
