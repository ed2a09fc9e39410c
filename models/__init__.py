"""Making models: the bundled versions lie here, and what makes, converts and measures versions."""
