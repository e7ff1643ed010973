"""Reads certificates for what is told about them; `ledger.intake.tls` serves with them."""

from datetime import datetime
from pathlib import Path

from cryptography import x509


def end_of_certificate(path: Path) -> datetime:
    """Return when the first to end of a file's chain (PEM) does. Raises `OSError`, `ValueError`."""
    chain = x509.load_pem_x509_certificates(path.read_bytes())
    return min(each.not_valid_after_utc for each in chain)
