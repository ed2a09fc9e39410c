"""Read image files, one module for each kind or family of kinds: each turns the bytes of a file into a Raster."""
