"""The state: what the fold said of each bill, kept in tables that can be made anew at any time."""
