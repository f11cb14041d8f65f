"""What is remembered between calls and processes."""
