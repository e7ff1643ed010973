"""The state: what the fold says of each bill, in tables that can be rebuilt at any time."""
