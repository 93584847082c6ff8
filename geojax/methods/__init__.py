"""One idea from one paper a file: pure step functions, no I/O (floor 4)."""
