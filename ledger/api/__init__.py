"""The HTTP API: reads of the state and of the log, and operators' decisions."""
