"""A real model's own symbols: text to ids and back, and what a conversation looks like in them."""
