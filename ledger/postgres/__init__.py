"""How Ledger talks to PostgreSQL: connections, locks, binary formats, prepared statements."""
