"""From characters to ids and back: alphabets, texts, windows of them, and text from a model."""
