"""Tests of a complete running upres (Redis, store, function and worker), which all tests of a process share."""
