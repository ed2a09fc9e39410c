"""The GPU side: takes jobs from the queue, enlarges, stores, tells how far it is."""
