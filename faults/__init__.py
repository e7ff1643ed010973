"""Does damage to Ledger and PostgreSQL under load, and counts: `python -m faults`."""
