"""A measurement for each exam card, one file a topic: its result decides which choice is right."""
