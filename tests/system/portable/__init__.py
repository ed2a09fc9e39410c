"""What runs in other environments than upres's own; `make portable` makes those, in .venv-onnx and .venv-tensorflow."""
