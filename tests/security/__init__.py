"""What SECURITY.md promises, and attacks on it."""
