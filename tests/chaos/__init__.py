"""Chaos tests: a seeded random plan kills real processes and cuts connections; at the end, no job may be lost."""
