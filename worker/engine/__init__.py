"""The engine: enlarges pixels with the networks of a model, in tiles and batches, on one device."""
