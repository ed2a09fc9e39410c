"""The thin entry: validates, enqueues, and lets people follow. Never imports torch, Pillow or the worker."""
