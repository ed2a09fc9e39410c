"""The operator's console: the commands `upres jobs`, `keys`, `workers` and `doctor`.

They talk to Redis and the object store themselves, and need the extra `operator`. What belongs to it is imported inside
of functions, so that every `--help` works without.
"""
