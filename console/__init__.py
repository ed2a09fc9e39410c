"""The commands for operators: `upres jobs`, `keys`, `workers` and `doctor`.

They connect directly to Redis and the object store, and need the extra `operator`. The packages of that extra are
imported inside of functions, so that `--help` of every command works without them.
"""
