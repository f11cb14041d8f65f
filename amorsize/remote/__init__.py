"""Calls on engines that the user already has: executors, Dask, Ray."""
