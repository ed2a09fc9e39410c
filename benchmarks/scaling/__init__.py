"""How upres scales: a simulation based on measured times, and measurements to verify it."""
