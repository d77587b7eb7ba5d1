"""To learn with: the exercises and their checkers, the notebooks, and the exam cards in every form."""
