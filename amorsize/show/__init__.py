"""Showing: what a run decided, how far it is, and what really happened."""
