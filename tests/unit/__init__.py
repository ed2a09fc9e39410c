"""Tests of parts alone: no server is started."""
