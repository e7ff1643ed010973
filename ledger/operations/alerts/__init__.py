"""Alerts: what to tell, in which words, and the channels that carry it."""
