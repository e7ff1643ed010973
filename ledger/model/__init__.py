"""What is true of events and bills: pure functions, no I/O, no clock, no framework."""
