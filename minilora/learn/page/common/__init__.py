"""What several sections of the page use: the state in the address, controls, numbers, charts."""
