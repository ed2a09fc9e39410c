"""Every figure that upres claims, each a ratio to a named peer in the same run, as JSON lines."""
