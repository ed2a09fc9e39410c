"""Unit tests: each test checks one part of upres and needs no running upres."""
