"""What a model writes: one symbol after another, quickly, and as an answer."""
