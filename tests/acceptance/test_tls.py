"""TLS of `ledger serve`: which versions, with which certificate, and under the same limits."""

import json
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest

from tests.support.certificates import Authority
from tests.support.payloads import distinct
from tests.support.server import LedgerServer, run_ledger, wait_until
from tests.support.wire import Wire, outcome, request

OPEN_FILES = 256


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module", params=["on", "off"], ids=["fast", "plain"])
def server(
    module_database_url: str,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
    request: pytest.FixtureRequest,
) -> Iterator[LedgerServer]:
    settings = {**authority.settings, "LEDGER_FAST_INTAKE": request.param}
    with LedgerServer(
        module_database_url,
        tmp_path_factory.mktemp("tls"),
        settings=settings,
        tls=authority.context(),
        open_files=OPEN_FILES,
    ) as started:
        yield started


def bodies(lab: str, count: int) -> list[bytes]:
    return [json.dumps(payload).encode() for payload in distinct(lab, count)]


def skip_unless_fast(server: LedgerServer) -> None:
    if server.settings["LEDGER_FAST_INTAKE"] == "off":
        pytest.skip("Ledger's own protocol does this")


def test_deliveries_and_questions_are_answered(server: LedgerServer, lab: str) -> None:
    [payload] = distinct(lab, 1)
    assert server.send(payload).json()["outcome"] == "recorded"
    server.settle()
    assert len(server.items("/v1/bills", lab_id=lab)) == 1


def test_deliveries_follow_each_other_on_a_connection(server: LedgerServer, lab: str) -> None:
    with Wire(server) as wire:
        for body in bodies(lab, 3):
            wire.send(request(body))
            assert outcome(wire.answer()) == (200, "recorded")


@pytest.mark.parametrize("size", [0, 60_000, 1_000_000])
def test_a_refusal_arrives_and_ends_the_connection(server: LedgerServer, size: int) -> None:
    with Wire(server) as wire:
        wire.send(request(b"x" * size, token="wrong"))
        status, headers, _ = wire.answer()
        assert (status, headers[b"connection"]) == (401, b"close")
        assert wire.is_at_end()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_modern_versions_are_spoken(
    server: LedgerServer, authority: Authority, version: ssl.TLSVersion
) -> None:
    context = authority.context(minimum_version=version, maximum_version=version)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
        cipher = secure.cipher()
        assert cipher
        assert "GCM" in cipher[0] or "CHACHA20" in cipher[0]


@pytest.mark.parametrize(
    "ciphers", ["AES256-SHA:AES128-SHA", "ECDHE-RSA-AES128-SHA256:ECDHE-ECDSA-AES128-SHA256"]
)
def test_ciphers_without_forward_secrecy_or_authentication_are_refused(
    server: LedgerServer, authority: Authority, ciphers: str
) -> None:
    context = authority.context(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(ciphers + ":@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
def test_a_version_that_is_out_of_date_is_refused(
    server: LedgerServer, authority: Authority
) -> None:
    context = authority.context(
        minimum_version=ssl.TLSVersion.TLSv1_1, maximum_version=ssl.TLSVersion.TLSv1_1
    )
    context.set_ciphers("ALL:@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", server.port)) as plain,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


def test_plain_http_is_no_handshake(server: LedgerServer) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as plain:
        plain.sendall(request(b"{}"))
        assert b"HTTP" not in plain.recv(100)


HELD_OPEN = {
    "nothing": b"",
    "half of a hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100,
}


@pytest.mark.parametrize("what", HELD_OPEN)
def test_handshakes_that_never_end_keep_no_delivery_out(
    server: LedgerServer, lab: str, what: str
) -> None:
    skip_unless_fast(server)
    with ExitStack() as held:
        for _ in range(3 * OPEN_FILES):
            connection = socket.create_connection(("127.0.0.1", server.port))
            held.enter_context(closing(connection))
            connection.sendall(HELD_OPEN[what])
        for body in bodies(lab, 5):
            began = time.monotonic()
            with Wire(server) as wire:
                wire.send(request(body))
                assert outcome(wire.answer()) == (200, "recorded")
            assert time.monotonic() - began < 1
        workers = psutil.Process(server.serve.pid).children(recursive=True)
        assert max(worker.num_fds() for worker in workers) < OPEN_FILES


def serial(server: LedgerServer) -> object:
    with Wire(server) as wire:
        assert isinstance(wire.socket, ssl.SSLSocket)
        found = wire.socket.getpeercert()
        assert found
        return found["serialNumber"]


def test_a_new_certificate_is_taken_and_no_connection_is_dropped(
    server: LedgerServer, authority: Authority, lab: str
) -> None:
    skip_unless_fast(server)
    former = serial(server)
    first, second, third, fourth = bodies(lab, 4)
    with Wire(server) as wire:
        wire.send(request(first))
        assert outcome(wire.answer()) == (200, "recorded")
        certificate, key = authority.issue()
        wait_until(lambda: serial(server) != former, "the new certificate is served")
        now = serial(server)
        # Half of the next change, and files that are no certificate.
        authority.issue()
        authority.key.write_bytes(key)
        wait_until(lambda: serial(server) and "values mismatch" in server.output, "it is noticed")
        assert serial(server) == now
        authority.certificate.unlink()
        wait_until(lambda: serial(server) and "cannot be read" in server.output, "it is noticed")
        assert serial(server) == now
        authority.certificate.write_bytes(certificate)
        for body in (second, third, fourth):
            wire.send(request(body))
            assert outcome(wire.answer()) == (200, "recorded")


@pytest.mark.parametrize(
    ("certificate", "key", "words"),
    [
        ("key.pem", "certificate.pem", "cannot be used"),
        ("none.pem", "key.pem", "cannot be read: No such file or directory"),
    ],
)
def test_files_of_no_use_stop_the_start_with_a_sentence(
    module_database_url: str, tmp_path: Path, certificate: str, key: str, words: str
) -> None:
    Authority(tmp_path)
    settings = {
        "LEDGER_DATABASE_URL": module_database_url,
        "LEDGER_WEBHOOK_TOKENS": "x",
        "LEDGER_TLS_CERTIFICATE": str(tmp_path / certificate),
        "LEDGER_TLS_KEY": str(tmp_path / key),
    }
    done = run_ledger("serve", settings=settings, timeout=20)
    assert done.returncode == 1
    [said] = done.stderr.decode().splitlines()
    assert words in said
    assert "LEDGER_TLS_KEY" in said
