"""Running: the items of a call, in the calling process, in threads or in worker processes."""
