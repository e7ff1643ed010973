"""The event log: the lane that writes it and the queries that read it."""
