"""The deployment on AWS, as far as it can be tried without AWS."""
