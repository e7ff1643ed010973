"""Deliveries on disk while PostgreSQL cannot take them; docs/decisions/spool.md has the format."""
