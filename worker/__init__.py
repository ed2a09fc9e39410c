"""The worker: takes jobs from the queue, enlarges their images on the device, stores them, and publishes progress."""
