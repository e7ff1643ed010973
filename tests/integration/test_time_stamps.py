"""Time stamps of checkpoints, by an authority that `openssl ts` plays."""

import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rfc3161_client import decode_timestamp_response

from ledger.errors import SealError, SettingsError, TimeStampError
from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from ledger.seals import time_stamps
from ledger.seals.notes import Checkpoint, SigningKey
from ledger.seals.publication import Publication
from ledger.seals.sealer import Sealer
from ledger.seals.time_stamps import TimeStamps, read_roots
from tests.support.histories import mixed_history
from tests.support.sessions import wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl plays the authority"),
]

KEY = SigningKey.new("lab.example/ledger")
NOW = datetime.now(UTC)
DAY = timedelta(days=1)

CONFIGURATION = """
[tsa]
default_tsa = authority
[authority]
serial = {folder}/serial
crypto_device = builtin
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256
ordering = no
tsa_name = yes
ess_cert_id_chain = no
[extensions]
extendedKeyUsage = critical,timeStamping
keyUsage = critical,digitalSignature
"""


def openssl(*arguments: str | Path) -> bytes:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, check=False)  # noqa: S607 -- whichever the PATH has
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


class Authority:
    """A time stamping authority. `answer` replaces what it says of a request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[bytes] = []
        self.answer: Callable[[bytes], tuple[int, bytes]] = self.stamp
        self._lock = threading.Lock()
        (folder / "serial").write_text("01\n")
        (folder / "ts.cnf").write_text(CONFIGURATION.format(folder=folder))
        new = ("req", "-newkey", "rsa:2048", "-nodes", "-batch")
        openssl(
            *new, "-x509", "-days", "3650", "-subj", "/CN=root", "-addext",
            "basicConstraints=critical,CA:TRUE", "-keyout", folder / "root.key",
            "-out", folder / "root.pem",
        )  # fmt: skip
        openssl(*new, "-subj", "/CN=tsa", "-keyout", folder / "tsa.key", "-out", folder / "tsa.csr")
        openssl(
            "x509", "-req", "-in", folder / "tsa.csr", "-CA", folder / "root.pem",
            "-CAkey", folder / "root.key", "-CAcreateserial", "-days", "3650",
            "-extfile", folder / "ts.cnf", "-extensions", "extensions", "-out", folder / "tsa.pem",
        )  # fmt: skip

    def stamp(self, request: bytes) -> tuple[int, bytes]:
        """Answer as an authority should."""
        with self._lock:
            query, reply = self.folder / "query", self.folder / "reply"
            query.write_bytes(request)
            openssl(
                "ts", "-reply", "-config", self.folder / "ts.cnf", "-queryfile", query,
                "-out", reply,
            )  # fmt: skip
            return 200, reply.read_bytes()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authority, str]]:
    authority = Authority(tmp_path_factory.mktemp("tsa"))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            authority.requests.append(request)
            status, answer = authority.answer(request)
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield authority, f"http://127.0.0.1:{server.server_port}/tsr"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def authority(served: tuple[Authority, str]) -> Iterator[Authority]:
    found, _ = served
    found.requests.clear()
    yield found
    found.answer = found.stamp


@pytest.fixture
def stamps(served: tuple[Authority, str]) -> TimeStamps:
    found, url = served
    return TimeStamps(url, interval=DAY, roots=read_roots(found.folder / "root.pem"))


def note(size: int) -> str:
    return KEY.sign(Checkpoint(KEY.name, size, bytes(32), NOW.replace(microsecond=0)).to_text())


@pytest.fixture(params=["file", "folder"])
def publication(request: pytest.FixtureRequest, tmp_path: Path) -> Publication:
    made = Publication(tmp_path if request.param == "folder" else tmp_path / "checkpoints")
    made.append(note(5))
    return made


def test_a_time_stamp_is_checked_by_openssl(
    authority: Authority, stamps: TimeStamps, publication: Publication
) -> None:
    path = stamps.stamp(publication, KEY.public)
    assert path
    data = path.with_suffix(".txt")
    assert data.read_text() == note(5)
    verify = ("ts", "-verify", "-in", path, "-CAfile", authority.folder / "root.pem")
    assert b"OK" in openssl(*verify, "-data", data)
    last = publication.last(KEY.public)
    assert last
    assert last.size == 5


def test_one_is_made_when_it_is_due_and_a_checkpoint_is_stamped_once(
    authority: Authority, stamps: TimeStamps, publication: Publication
) -> None:
    assert stamps.stamp_if_due(publication, KEY.public, NOW)
    assert stamps.stamp_if_due(publication, KEY.public, NOW + 2 * DAY) is None  # nothing is new
    publication.append(note(9))
    assert stamps.stamp_if_due(publication, KEY.public, NOW + DAY / 2) is None
    path = stamps.stamp_if_due(publication, KEY.public, NOW + 2 * DAY)
    assert path
    assert path.name == f"checkpoint-{9:020}.tsr"
    assert len(authority.requests) == 2


def test_a_stamp_that_was_damaged_is_made_again(
    stamps: TimeStamps, publication: Publication
) -> None:
    path = stamps.stamp(publication, KEY.public)
    assert path
    path.write_bytes(path.read_bytes()[:50])
    assert stamps.stamp_if_due(publication, KEY.public, NOW) == path
    assert decode_timestamp_response(path.read_bytes()).status == 0


def other_request(authority: Authority) -> Callable[[bytes], tuple[int, bytes]]:
    def answer(_request: bytes) -> tuple[int, bytes]:
        return authority.stamp(other)

    query = authority.folder / "other.tsq"
    openssl("ts", "-query", "-data", authority.folder / "ts.cnf", "-sha256", "-out", query)
    other = query.read_bytes()
    return answer


ANSWERS: dict[str, tuple[Callable[[Authority], Callable[[bytes], tuple[int, bytes]]], str]] = {
    "no time stamp": (lambda _: lambda _: (200, b"<html>"), "gave no time stamp"),
    "empty": (lambda _: lambda _: (200, b""), "gave no time stamp"),
    "an error": (lambda _: lambda _: (503, b""), "answered 503"),
    "elsewhere": (lambda _: lambda _: (302, b""), "answered 302"),
    "too much": (lambda _: lambda _: (200, bytes(70_000)), "more than a time stamp has"),
    "refused": (lambda tsa: lambda _: tsa.stamp(b"x"), "refused a time stamp"),
    "of something else": (other_request, "of something else"),
}


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_that_is_no_time_stamp_is_not_kept(
    authority: Authority, stamps: TimeStamps, tmp_path: Path, answer: str
) -> None:
    publication = Publication(tmp_path)
    publication.append(note(5))
    make, words = ANSWERS[answer]
    authority.answer = make(authority)
    with pytest.raises(TimeStampError, match=words):
        stamps.stamp_if_due(publication, KEY.public, NOW)
    assert publication.last_stamp() is None
    authority.answer = authority.stamp
    with pytest.raises(TimeStampError, match=words):
        stamps.stamp_if_due(publication, KEY.public, NOW + DAY / 1000)  # too soon
    assert len(authority.requests) == 1
    assert stamps.stamp_if_due(publication, KEY.public, NOW + DAY)


def test_an_authority_is_not_asked_again_at_once_for_what_cannot_be_kept(
    authority: Authority, stamps: TimeStamps, tmp_path: Path
) -> None:
    publication = Publication(tmp_path / "checkpoints")
    publication.append(note(5))
    (tmp_path / "checkpoints.time-stamps").write_text("in the way")
    for minutes in range(3):
        with pytest.raises(SealError, match="cannot write"):
            stamps.stamp_if_due(publication, KEY.public, NOW + timedelta(minutes=minutes))
    assert len(authority.requests) == 1
    (tmp_path / "checkpoints.time-stamps").unlink()
    assert stamps.stamp_if_due(publication, KEY.public, NOW + DAY)


@pytest.mark.parametrize("begins", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_an_authority_that_drips_does_not_hold_the_sealer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begins: bytes
) -> None:
    """Each byte comes in time, in the headers or the body, and the answer never ends."""
    monkeypatch.setattr(time_stamps, "TIMEOUT", 0.5)
    publication = Publication(tmp_path)
    publication.append(note(5))
    gone = threading.Event()

    class Dripping(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(begins)
            with suppress(OSError):
                while not gone.wait(0.05):
                    self.request.sendall(b"x")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Dripping) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        stamps = TimeStamps(f"http://127.0.0.1:{server.server_address[1]}/tsr", interval=DAY)
        try:
            with pytest.raises(TimeStampError, match=r"did not end its answer within 0\.5 s"):
                stamps.stamp_if_due(publication, KEY.public, NOW)
        finally:
            gone.set()
            server.shutdown()
            thread.join()


def test_a_stamp_of_an_authority_that_is_not_trusted_is_refused(
    authority: Authority, served: tuple[Authority, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.pem"
    openssl(
        "req", "-newkey", "rsa:2048", "-nodes", "-batch", "-x509", "-subj", "/CN=root",
        "-keyout", tmp_path / "key", "-out", other,
    )  # fmt: skip
    publication = Publication(tmp_path / "checkpoints")
    publication.append(note(5))
    _, url = served
    stamps = TimeStamps(url, interval=DAY, roots=read_roots(other))
    with pytest.raises(TimeStampError, match="LEDGER_SEAL_TIMESTAMP_ROOTS"):
        stamps.stamp(publication, KEY.public)
    assert authority.requests


def test_roots_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    for name, words in (("x", "no certificates in PEM"), ("y", "No such file")):
        with pytest.raises(SettingsError, match=words):
            read_roots(tmp_path / name)


def test_without_the_library_it_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfc3161_client", None)
    with pytest.raises(SettingsError, match=r"pip install 'ledger\[timestamps\]'"):
        TimeStamps("http://x", interval=DAY)


def test_the_sealer_goes_on_without_its_authority_and_stamps_when_it_is_back(
    database_url: str,
    authority: Authority,
    stamps: TimeStamps,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time_stamps, "PAUSE", timedelta(0))
    authority.answer = lambda _: (500, b"")
    publication = Publication(tmp_path)
    sealer = Sealer(database_url, key=KEY, publish_to=tmp_path, interval=0.01, time_stamps=stamps)
    with connect(database_url, "test") as connection:
        append(connection, mixed_history(20))
        sealer.start()
        try:
            wait_until(lambda: sealer.trouble, "it says that there is no time stamp")
            assert sealer.trouble
            assert sealer.trouble.kind == "TimeStampError"
            append(connection, mixed_history(5, seed=2))
            wait_until(
                lambda: (last := publication.last(KEY.public)) and last.size > 20, "it seals"
            )
            authority.answer = authority.stamp
            wait_until(publication.last_stamp, "it is stamped")
            wait_until(lambda: sealer.trouble is None, "all is well")
        finally:
            sealer.stop()
