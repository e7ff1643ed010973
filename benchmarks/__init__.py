"""Measurements: each runs Ledger and its ceiling in turn, and prints the ratio."""
