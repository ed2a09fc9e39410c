"""A whole upres on one machine, with its own Redis and object store."""
