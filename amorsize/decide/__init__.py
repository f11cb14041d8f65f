"""Deciding: what a function is, what it costs, what this machine has, and what to do about it."""
