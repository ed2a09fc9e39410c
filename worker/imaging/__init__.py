"""Decodes image files to pixels, and encodes pixels to image files."""
