"""What a function is: fingerprints, and what it reaches."""
