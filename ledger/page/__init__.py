"""The page: what the API knows, for people with a browser."""
