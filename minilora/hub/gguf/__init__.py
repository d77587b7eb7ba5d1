"""Models and tokenizers out of .gguf files, as llama.cpp has them."""
