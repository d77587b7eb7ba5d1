"""One HTML file that explains LoRA with a live model, offline: build.py puts it together."""
