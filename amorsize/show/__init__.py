"""Output for people: reports, hints and progress."""
