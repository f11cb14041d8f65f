"""What a function is: its fingerprints, and the values it reaches."""
