"""Chaos: long, seeded runs under fire."""
