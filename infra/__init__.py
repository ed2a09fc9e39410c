"""Deployment of upres: on this machine, in containers, on AWS; and tools of the Makefile."""
