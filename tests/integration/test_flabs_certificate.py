"""What `ledger flabs check` says of the certificate at the public address."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme

from ledger.flabs.check import CheckedStep, certificate_step

AUTHORITY = trustme.CA()
NOW = datetime.now(UTC)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AUTHORITY.cert_pem.write_to_path(tmp_path / "root.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))


@contextmanager
def served(until: datetime) -> Iterator[str]:
    """Serve a certificate that ends then, and nothing else; give the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert("127.0.0.1", not_after=until).configure_cert(context)

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError), context.wrap_socket(connection, server_side=True):
            pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/webhooks/flabs"
        thread.join(30)


def look(until: datetime) -> CheckedStep:
    with served(until) as endpoint:
        return certificate_step(endpoint)


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_lasts_is_good() -> None:
    found = look(NOW + timedelta(days=90))
    assert found.ok
    assert found.words.startswith(f"valid until {NOW + timedelta(days=90):%F}")


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_ends_soon_must_be_renewed() -> None:
    found = look(NOW + timedelta(days=9, minutes=30))
    assert not found.ok
    assert "in 9 days" in found.words
    assert found.words.endswith(": renew it")


def test_a_certificate_that_flabs_does_not_trust_is_not_valid() -> None:
    found = look(NOW + timedelta(days=90))
    assert not found.ok
    assert "is not valid" in found.words


@pytest.mark.usefixtures("trusted")
def test_a_certificate_that_has_ended_is_not_valid() -> None:
    found = look(NOW - timedelta(days=1))
    assert not found.ok
    assert "is not valid: certificate has expired" in found.words


def test_an_address_that_nobody_serves_is_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = certificate_step(f"https://127.0.0.1:{port}/webhooks/flabs")
    assert not found.ok
    assert found.words.startswith("127.0.0.1 cannot be reached: ")
