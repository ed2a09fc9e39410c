"""The bundled model versions, and the tools that make, convert and measure model versions."""
