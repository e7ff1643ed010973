"""The reconciliation report: what is missing, now or as of an earlier position."""
