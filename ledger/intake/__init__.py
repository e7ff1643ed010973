"""The intake: authenticates a delivery, makes it durable, answers. It never judges content."""
