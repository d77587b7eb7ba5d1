"""Every way to fine-tune, on one list; a base in few bits; and what becomes of several adapters."""
