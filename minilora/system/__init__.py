"""What the machine gives: files, memory, cores. Imports nothing of the package."""
