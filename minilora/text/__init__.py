"""From text to batches of ids: alphabets, texts, strings to be changed, questions and answers."""
