"""What function, worker, console and client share: messages, errors, Redis keys, events, queue, storage, settings."""
