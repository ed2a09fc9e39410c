"""Proof that nothing is lost: real processes, killed and cut off by a seeded plan; invariants at the end."""
