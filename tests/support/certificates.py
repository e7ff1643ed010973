"""Certificates for tests, of an authority of their own."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """An authority, and the files into which it writes certificates for 127.0.0.1."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.certificate = folder / "certificate.pem"
        self.key = folder / "key.pem"
        self.issue()

    @property
    def settings(self) -> dict[str, str]:
        return {
            "LEDGER_TLS_CERTIFICATE": str(self.certificate),
            "LEDGER_TLS_KEY": str(self.key),
        }

    def issue(self) -> tuple[bytes, bytes]:
        """Write a new certificate and its key, and return them."""
        made = self._authority.issue_cert("127.0.0.1")
        certificate = b"".join(blob.bytes() for blob in made.cert_chain_pems)
        key = made.private_key_pem.bytes()
        self.certificate.write_bytes(certificate)
        self.key.write_bytes(key)
        return certificate, key

    def context(self, **versions: ssl.TLSVersion) -> ssl.SSLContext:
        """Return what a client needs to trust the certificates."""
        context = ssl.create_default_context()
        self._authority.configure_trust(context)
        for name, version in versions.items():
            setattr(context, name, version)
        return context
