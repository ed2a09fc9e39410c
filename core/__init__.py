"""What the parts say to each other: schema, errors, keys, events, storage, settings."""
