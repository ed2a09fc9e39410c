"""Everything of upres that runs on AWS."""
