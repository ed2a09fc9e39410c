"""How upres scales: a simulation fed with what was measured, and what was measured beside it."""
