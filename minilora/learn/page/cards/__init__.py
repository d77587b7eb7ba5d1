"""The exam cards: to read, to answer, to sit as an exam, and to review when they are due."""
