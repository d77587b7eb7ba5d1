"""The studies: each asks one question and answers it with many short trainings."""
