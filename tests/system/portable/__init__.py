"""Tests that run in environments other than .venv: .venv-onnx and .venv-tensorflow, which `make portable` creates."""
