"""One call, from its first item to the record it leaves."""
