"""Measuring: the machine, the process, the items."""
