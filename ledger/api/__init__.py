"""The HTTP API: reads of the state and of the log, and the application that serves them."""
