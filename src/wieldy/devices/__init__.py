"""What the machine can do and what a piece of work costs on it."""
