"""Everything that runs upres: on this machine, in containers, on AWS."""
