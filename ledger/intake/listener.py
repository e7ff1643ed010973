"""What a server's protocol must know about the address that it serves."""

from ledger.intake.proxies import TrustedProxies
from ledger.intake.tls import Certificate
from ledger.settings import Settings


class Listener:
    """The certificate, if the address speaks TLS, and the proxies that are trusted."""

    def __init__(
        self, certificate: Certificate | None = None, proxies: TrustedProxies | None = None
    ) -> None:
        self.certificate = certificate
        self.proxies = proxies or TrustedProxies()

    @classmethod
    def of(cls, settings: Settings) -> "Listener":
        """Return what settings say. Raises `SettingsError`."""
        files = settings.tls_files()
        return cls(Certificate(*files) if files else None, TrustedProxies(settings.trusted_proxies))
