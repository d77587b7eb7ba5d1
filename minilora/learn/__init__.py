"""To learn with: exercises and their checkers, notebooks, and the exam cards in every form."""
