"""To learn with: the checkers of the lessons' exercises, and the exam cards in every form."""
