"""The parts of upres that exist only on AWS."""
