"""Running: the same items, in the calling process, in threads or in worker processes."""
