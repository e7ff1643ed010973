"""Deliveries refused for their token: kept in a box, accepted into the log, or dropped."""
