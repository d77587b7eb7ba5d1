"""The lessons' notebooks: what is made of a source, and what a learner has made of it."""
