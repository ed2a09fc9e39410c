"""Runs all parts of upres on one machine, with their own Redis and object store."""
