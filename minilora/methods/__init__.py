"""Every way to fine-tune, on one list."""
