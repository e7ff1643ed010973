"""`ledger doctor`: looks at what an installation can have wrong, and says what to do about it."""
