"""The entry function on AWS."""
