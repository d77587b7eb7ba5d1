"""The exam cards, and what a person does with them: answer, review, sit an exam on paper."""
