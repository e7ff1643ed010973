"""`ledger doctor`: nothing to say of a healthy installation, and a finding for each fault."""

import json
import os
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import trustme
from msgspec.structs import replace
from psycopg import Connection

from ledger import schema
from ledger.doctor import machine, server
from ledger.doctor.examine import examine
from ledger.doctor.findings import Finding
from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from ledger.postgres.locks import Lock, lock_session
from ledger.projection.verification import read_last_verification, record_verification
from ledger.projection.verify import verify
from ledger.seals.key_file import make_key_file
from ledger.seals.sealing import log_head, seal_batch
from ledger.setting_values import Address
from ledger.settings import Settings
from ledger.spool.folder import Waiting, WorkerFolder
from tests.support.addresses import database_of
from tests.support.commands import settings_of
from tests.support.histories import body, delivery
from tests.support.postgres import PrivateServer, folder_for_postgres
from tests.support.server import run_ledger
from tests.support.sessions import drain

pytestmark = pytest.mark.slow

PASSWORD = "a-password-of-a-login"


@pytest.fixture(scope="module")
def durable() -> Iterator[PrivateServer]:
    """Give a server with the settings of production."""
    with folder_for_postgres() as folder:
        made = PrivateServer(folder / "postgres")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def owner(durable: PrivateServer) -> Iterator[Connection]:
    with psycopg.connect(durable.dsn(), autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="module")
def healthy(
    durable: PrivateServer, owner: Connection, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Settings]:
    """Give the settings of an installation in which nothing is wrong, and keep it running."""
    folder = tmp_path_factory.mktemp("doctor")
    url = durable.dsn()
    schema.migrate(url)
    owner.execute(f"CREATE ROLE service LOGIN PASSWORD '{PASSWORD}' IN ROLE ledger_service")
    make_key_file(folder / "seal.key", "ledger.example/log")
    login = psycopg.conninfo.make_conninfo(url, user="service", password=PASSWORD)
    settings = Settings(
        database_url=login,
        webhook_tokens=("Zr8uQx2mKd5vLw9tYb",),
        admin_key="Gn4cHs7jRf1zXe6pMa",
        alert_urls=("json://127.0.0.1",),
        spool_dir=folder / "spool",
        seal_key=folder / "seal.key",
        seal_publish=folder / "checkpoints",
    )
    with closing(connect(url, "test")) as service:
        append(service, [delivery(body(bill="b1"))])
        catch_up(service)
        record_verification(url, verify(url, processes=1, on_progress=lambda *_: None))
        alive = "INSERT INTO ledger.liveness VALUES (gen_random_uuid(), now(), now() + '1 day')"
        owner.execute(alive)
        lock_session(service, Lock.LEADER)
        yield replace(settings, seal_key=None)


def catch_up(service: Connection) -> None:
    """Fold and seal what is in the log."""
    drain(service)
    seal_batch(service, log_head(service))


def findings(settings: Settings, check: str) -> list[Finding]:
    return [each for each in examine(settings) if each.check == check]


def verdicts(settings: Settings) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for each in examine(settings):
        found.setdefault(each.check, set()).add(each.verdict)
    return found


def test_nothing_is_wrong_with_a_healthy_installation(healthy: Settings) -> None:
    found = {name: each for name, each in verdicts(healthy).items() if each != {"ok"}}
    assert found == {"backup": {"unknown"}, "seal key": {"warning"}, "disk": {"unknown"}}


IN_THE_DATABASE = {
    "may delete": (
        "GRANT DELETE ON ledger.event_log TO ledger_service",
        "REVOKE DELETE ON ledger.event_log FROM ledger_service",
        ("rights", "wrong", "ledger_service may DELETE ledger.event_log"),
    ),
    "may truncate through everybody": (
        "GRANT TRUNCATE ON ledger.erasable_body TO PUBLIC",
        "REVOKE TRUNCATE ON ledger.erasable_body FROM PUBLIC",
        ("rights", "wrong", "ledger_intake may TRUNCATE ledger.erasable_body"),
    ),
    "may not append": (
        "REVOKE INSERT ON ledger.event_log FROM ledger_intake",
        "GRANT INSERT ON ledger.event_log TO ledger_intake",
        ("rights", "wrong", "ledger_intake may not INSERT ledger.event_log"),
    ),
    "no trigger": (
        "ALTER TABLE ledger.event_log ENABLE TRIGGER event_log_is_append_only",
        "ALTER TABLE ledger.event_log ENABLE ALWAYS TRIGGER event_log_is_append_only",
        ("rights", "wrong", "ledger.event_log is missing or switched off"),
    ),
    "fold version": (
        "UPDATE state.checkpoint SET fold_version = fold_version + 1",
        "UPDATE state.checkpoint SET fold_version = fold_version - 1",
        ("fold version", "wrong", "folds by version"),
    ),
    "receivers": (
        (
            "UPDATE ledger.liveness SET alive_from = now() - interval '3 days',"
            " alive_until = now() - interval '2 days'"
        ),
        "UPDATE ledger.liveness SET alive_until = now() + interval '1 day'",
        ("receivers", "wrong", "for 2 d"),
    ),
    "parked": (
        (
            "INSERT INTO state.parked_bill (lab_id, bill_id, position, error)"
            " VALUES ('l', 'b', 1, 'e')"
        ),
        "DELETE FROM state.parked_bill",
        ("parked", "warning", "1 bill could not be folded"),
    ),
    "refused": (
        (
            "INSERT INTO ledger.refused_delivery SELECT 'i', now(), now(), 1, 'wrong', 'c',"
            " e.lab_id, true, 'b', 'bill.created', NULL, sha256(''), 1, ''"
            " FROM ledger.event_log e WHERE e.position = 1"
        ),
        "DELETE FROM ledger.refused_delivery",
        ("refused", "wrong", "1 delivery of known labs"),
    ),
    "verified long ago": (
        (
            "INSERT INTO ledger.verification (verified_at, head, bills)"
            " VALUES (now() - interval '30 days', 1, 1)"
        ),
        "DELETE FROM ledger.verification WHERE verified_at < now() - interval '9 days'",
        ("verification", "warning", "30 d"),
    ),
    "a difference": (
        (
            "INSERT INTO ledger.verification (verified_at, head, bills, difference)"
            " VALUES (now(), 1, 1, 'position 7 is missing')"
        ),
        "DELETE FROM ledger.verification WHERE difference IS NOT NULL",
        ("verification", "wrong", "position 7 is missing"),
    ),
    "read-only": (
        "ALTER DATABASE ledger SET default_transaction_read_only = on",
        "ALTER DATABASE ledger RESET default_transaction_read_only",
        ("writable", "wrong", "is read-only"),
    ),
}


@pytest.mark.parametrize("fault", IN_THE_DATABASE)
def test_a_fault_in_the_database_is_found(healthy: Settings, owner: Connection, fault: str) -> None:
    make, mend, (check, verdict, words) = IN_THE_DATABASE[fault]
    owner.execute(make.encode())
    try:
        found = findings(healthy, check)
    finally:
        owner.execute(mend.encode())
    assert [each for each in found if each.verdict == verdict and words in each.words], found
    assert all(each.advice for each in found if each.verdict != "ok")
    assert verdicts(healthy).get(check, {"ok"}) == {"ok"}, "it was mended"


IN_THE_SERVER = {
    "fsync": ("off", "durability", "wrong", "fsync is off"),
    "full_page_writes": ("off", "durability", "wrong", "full_page_writes is off"),
    "synchronous_commit": ("off", "durability", "warning", "Ledger's sessions commit with on"),
    "autovacuum": ("off", "autovacuum", "wrong", "autovacuum is off"),
    "track_counts": ("off", "autovacuum", "wrong", "track_counts is off"),
    "synchronous_standby_names": ("elsewhere", "replication", "wrong", "and none streams"),
}


@pytest.mark.parametrize("name", IN_THE_SERVER)
def test_a_fault_in_the_servers_settings_is_found(
    healthy: Settings, owner: Connection, name: str
) -> None:
    value, check, verdict, words = IN_THE_SERVER[name]

    def setting(command: str) -> None:
        owner.execute(command.encode())
        owner.execute("SELECT pg_reload_conf()")

    def reloaded() -> list[Finding]:
        for _ in range(100):  # a reload reaches new sessions soon
            found = [each for each in findings(healthy, check) if words in each.words]
            if found:
                return found
        return []

    owner.execute("SET synchronous_commit = off")  # this session waits for no standby
    setting(f"ALTER SYSTEM SET {name} = '{value}'")
    try:
        [found] = reloaded()
    finally:
        setting(f"ALTER SYSTEM RESET {name}")
    assert found.verdict == verdict
    assert found.advice


@pytest.mark.parametrize(
    ("limit", "check", "verdict"),
    [
        (("OLDEST_XID", 0), "autovacuum", "wrong"),
        (("CONNECTIONS", 0), "connections", "warning"),
        (("NEWEST", 14), "version", "warning"),
        (("OLDEST", 99), "version", "wrong"),
        (("CLOCK_WARNING", timedelta()), "clock", "warning"),
        (("CLOCK_WRONG", timedelta()), "clock", "wrong"),
    ],
)
def test_what_is_beyond_a_limit_of_the_server_is_found(
    healthy: Settings,
    monkeypatch: pytest.MonkeyPatch,
    limit: tuple[str, object],
    check: str,
    verdict: str,
) -> None:
    monkeypatch.setattr(server, *limit)
    assert verdict in {each.verdict for each in findings(healthy, check)}


def test_a_session_that_idles_in_a_transaction_is_found(
    healthy: Settings, durable: PrivateServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert findings(healthy, "transactions") == []
    monkeypatch.setattr(server, "OLD_TRANSACTION", timedelta())
    with psycopg.connect(durable.dsn()) as idle:
        idle.execute("SELECT 1")
        # Who may not see other users' sessions sees no state of theirs.
        as_owner = replace(healthy, database_url=durable.dsn())
        assert [each.verdict for each in findings(as_owner, "transactions")] == ["warning"]


def test_a_slot_that_nobody_reads_is_found(
    healthy: Settings, owner: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    monkeypatch.setattr(server, "SLOT_BYTES", -1)
    try:
        found = findings(healthy, "replication")
    finally:
        owner.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert [each.verdict for each in found if "forgotten" in each.words] == ["warning"]


def test_the_owner_of_the_log_is_no_login_for_a_service(
    healthy: Settings, durable: PrivateServer
) -> None:
    [found] = findings(replace(healthy, database_url=durable.dsn()), "login")
    assert found.verdict == "warning"
    assert "is a superuser" in found.words


def test_what_the_owner_may_see_is_not_unknown(healthy: Settings, durable: PrivateServer) -> None:
    [found] = findings(replace(healthy, database_url=durable.dsn()), "disk")
    assert found.verdict == "ok"


def test_who_may_not_act_as_the_service_is_found(healthy: Settings, owner: Connection) -> None:
    owner.execute("REVOKE ledger_service FROM service")
    try:
        [found] = findings(healthy, "schema")
    finally:
        owner.execute("GRANT ledger_service TO service")
    assert found.verdict == "wrong"
    assert "GRANT ledger_service" in found.words


def test_a_state_that_does_not_follow_is_found(healthy: Settings, durable: PrivateServer) -> None:
    with closing(connect(durable.dsn(), "test")) as service:
        append(service, [delivery(body(bill="b2"), received=0)])  # years ago
        found = verdicts(healthy)
        assert found["lag"] == {"wrong"}
        assert found["seals"] == {"wrong"}
        catch_up(service)
    assert verdicts(healthy)["lag"] == verdicts(healthy)["seals"] == {"ok"}


def test_a_projector_that_does_not_run_is_found(database_url: str, healthy: Settings) -> None:
    found = {
        each.check: each
        for each in examine(replace(healthy, database_url=database_url, webhook_tokens=()))
        if each.verdict in {"wrong", "warning"}
    }
    assert found["projector"].words.startswith("no projector runs")
    assert found["receivers"].words == "nothing has ever received here"
    assert found["verification"].words == "the log and the state were never verified"
    assert found["webhook tokens"].verdict == "wrong"


def test_an_environment_with_another_policy_is_found(database_url: str, healthy: Settings) -> None:
    here = replace(healthy, database_url=database_url)
    assert findings(replace(here, retry_count=5), "policy")[0].verdict == "ok", "it is adopted"
    schema.migrate(database_url, {"retry_count": 4})
    [found] = findings(replace(here, retry_count=5), "policy")
    assert found.verdict == "wrong"
    assert "LEDGER_RETRY_COUNT is 5 here and 4 in the database" in found.words


def test_a_database_that_was_not_prepared_is_found(
    empty_database_url: str, healthy: Settings
) -> None:
    found = verdicts(replace(healthy, database_url=empty_database_url))
    assert found["schema"] == {"wrong"}
    assert "rights" not in found


def test_a_database_that_is_not_utf8_is_found(postgres_url: str, healthy: Settings) -> None:
    name = "doctor_latin1"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0"
        )
        try:
            url = database_of(postgres_url, name)
            [found] = findings(replace(healthy, database_url=url), "schema")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    assert found.verdict == "wrong"
    assert "LATIN1" in found.words


def test_without_a_database_the_machine_is_still_looked_at(healthy: Settings) -> None:
    away = "postgresql://nobody@127.0.0.1:1/ledger"
    found = verdicts(replace(healthy, database_url=away, alert_urls=()))
    assert found["database"] == {"wrong"}
    assert found["alerts"] == {"warning"}
    assert verdicts(replace(healthy, database_url=""))["database"] == {"wrong"}


def machine_findings(settings: Settings, check: str) -> list[Finding]:
    found = machine.check_machine(settings, datetime.now(UTC))
    return [each for each in found if each.check == check]


def test_a_secret_that_can_be_guessed_is_found_and_not_shown() -> None:
    [found] = machine_findings(Settings(webhook_tokens=("geheim123",)), "secrets")
    assert found.verdict == "wrong"
    assert "geheim123" not in found.words + found.advice


@pytest.mark.parametrize(
    ("settings", "check", "verdict"),
    [
        (Settings(host="0.0.0.0"), "addresses", "warning"),  # noqa: S104 -- the point
        (Settings(host="0.0.0.0", trusted_proxies=("10.0.0.1/32",)), "addresses", "ok"),  # noqa: S104
        (Settings(listen_status=Address("127.0.0.1", 1)), "settings", "wrong"),
        (Settings(tls_certificate=Path("c.pem")), "settings", "wrong"),
        (Settings(spool_dir=Path("s"), spool_max_bytes=1), "settings", "wrong"),
        (Settings(), "spool", "warning"),
        (Settings(seal_key=Path("no-such-file")), "seal key", "wrong"),
    ],
)
def test_a_fault_of_the_settings_is_found(settings: Settings, check: str, verdict: str) -> None:
    [found] = machine_findings(settings, check)
    assert found.verdict == verdict


@pytest.mark.parametrize(
    ("days", "verdict"), [(-1, "wrong"), (5, "warning"), (60, "ok")], ids=["past", "soon", "later"]
)
def test_the_end_of_the_certificate_is_looked_at(tmp_path: Path, days: int, verdict: str) -> None:
    ends = datetime.now(UTC) + timedelta(days=days)
    made = trustme.CA().issue_cert("127.0.0.1", not_after=ends)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    certificate.write_bytes(made.cert_chain_pems[0].bytes())
    key.write_bytes(made.private_key_pem.bytes())
    settings = Settings(tls_certificate=certificate, tls_key=key)
    [found] = machine_findings(settings, "certificate")
    assert found.verdict == verdict
    key.write_bytes(trustme.CA().issue_cert("127.0.0.1").private_key_pem.bytes())
    [found] = machine_findings(settings, "certificate")
    assert found.verdict == "wrong"
    assert found.words.endswith(f"LEDGER_TLS_KEY {key} cannot be used: key values mismatch")
    key.unlink()
    [found] = machine_findings(settings, "certificate")
    assert found.verdict == "wrong"
    assert found.words.endswith(f"LEDGER_TLS_KEY {key} cannot be read: No such file or directory")


def test_what_waits_in_the_spool_or_was_set_aside_is_told(tmp_path: Path) -> None:
    settings = Settings(spool_dir=tmp_path)
    assert [each.verdict for each in machine_findings(settings, "spool")] == ["ok"]
    folder = WorkerFolder.create(tmp_path)
    folder.write_counts(Waiting(3, 900, datetime.now(UTC) - timedelta(minutes=5)))
    folder.set_aside("record.bin", b"x")
    found = machine_findings(settings, "spool")
    folder.close()
    assert [each.verdict for each in found] == ["ok", "warning", "wrong"]
    assert "3 deliveries wait" in found[1].words
    assert "1 record" in found[2].words


def test_a_spool_without_room_or_folder_is_found(tmp_path: Path) -> None:
    [found] = machine_findings(Settings(spool_dir=tmp_path / "s", spool_max_bytes=10**16), "spool")
    assert found.verdict == "wrong"
    (tmp_path / "file").write_text("")
    [found] = machine_findings(Settings(spool_dir=tmp_path / "file" / "s"), "spool")
    assert "is no folder that this user can write to" in found.words
    [found] = machine_findings(Settings(spool_dir=tmp_path / ("s" * 300)), "spool")
    assert (found.verdict, "cannot be looked at" in found.words) == ("wrong", True)


def test_a_key_that_others_can_read_is_found(tmp_path: Path) -> None:
    key = tmp_path / "seal.key"
    make_key_file(key, "log")
    [found] = machine_findings(Settings(seal_key=key), "seal key")
    assert (found.verdict, "in the database alone" in found.words) == ("warning", True)
    [found] = machine_findings(Settings(seal_key=key, seal_publish=tmp_path / "c"), "seal key")
    assert found.verdict == "ok"
    os.chmod(key, 0o644)  # noqa: PTH101 -- the file's own mode
    [found] = machine_findings(Settings(seal_key=key), "seal key")
    assert found.verdict == "wrong"


def test_the_command_says_it_in_lines_and_as_json(database_url: str) -> None:
    settings = settings_of(database_url)
    done = run_ledger("doctor", settings=settings)
    assert done.returncode == 3, done.stderr
    lines = done.stdout.decode().splitlines()
    assert any(line.startswith("wrong    projector") for line in lines)
    assert "-> start `ledger project`" in done.stdout.decode()
    assert lines[-1].endswith("warnings.")
    found = json.loads(run_ledger("doctor", "--json", settings=settings).stdout)
    assert {"check": "projector", "verdict": "wrong"}.items() <= next(
        each for each in found if each["check"] == "projector"
    ).items()


def test_the_command_says_what_is_wrong_with_the_settings() -> None:
    done = run_ledger("doctor", settings={"LEDGER_PROT": "1"})
    assert done.returncode == 3
    assert b"did you mean LEDGER_PORT?" in done.stdout


def test_verify_records_what_it_found(database_url: str) -> None:
    assert run_ledger("verify", settings=settings_of(database_url)).returncode == 0
    with closing(connect(database_url, "test")) as connection:
        last = read_last_verification(connection)
    assert last
    assert last.difference is None
