"""Workers that live as long as a pool, and serve many tasks of many functions at once."""
