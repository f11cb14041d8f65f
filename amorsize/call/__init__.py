"""One call, from its first item to what is remembered of it."""
