"""The account at Flabs: what is subscribed there, and whether that is what it should be."""
