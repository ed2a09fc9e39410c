"""Image files → pixels, and pixels → image files."""
