"""Attacks, by lists that were not made to be passed."""
