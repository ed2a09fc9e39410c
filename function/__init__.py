"""The function validates requests, enqueues jobs and serves their events. It imports no torch, Pillow or worker."""
