"""Tests of the running whole: one upres with its Redis, store, function and worker, shared by all of a process."""
