"""Pixels → more pixels: tiles, batches, the device, the networks."""
