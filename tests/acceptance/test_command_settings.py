"""The settings of the commands: what is wrong is named, what is secret is not shown."""

from pathlib import Path

import psycopg
import pytest

from ledger.errors import SettingsError
from ledger.settings import Settings
from tests.support.commands import assert_sentence, settings_of
from tests.support.payloads import event
from tests.support.server import (
    KEY,
    TOKEN,
    LedgerServer,
    run_ledger,
)

# --- settings ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("LEDGER_DATABASE_ULR", "x", "did you mean LEDGER_DATABASE_URL"),
        ("LEDGER_WEBHOOK_TOKEN", "x", "did you mean LEDGER_WEBHOOK_TOKENS"),
        ("LEDGER_PORT", "eighty", "eighty"),
        ("LEDGER_PORT", "9" * 5000, "65535"),
        ("LEDGER_MAX_BODY", "1M", "1M"),
        ("LEDGER_EVENTS", "bill.created,bill.exploded", "bill.exploded"),
        ("LEDGER_WEBHOOK_HEADER", "two words", "header"),
        ("LEDGER_FAST_INTAKE", "maybe", "on or off"),
        ("LEDGER_PATH_PREFIX", "ledger", "/ledger"),
        ("LEDGER_PATH_PREFIX", "/led ger", "/ledger"),
        ("LEDGER_WEBHOOK_TOKENS", "sec ret", "LEDGER_WEBHOOK_TOKENS"),
        ("LEDGER_DATABASE_URL", "mysql://u:sec_ret@h/d", "postgresql://"),
    ],
)
def test_a_bad_setting_stops_the_start_with_a_sentence_that_names_it(
    name: str, value: str, words: str
) -> None:
    settings = {**settings_of("postgresql://u@127.0.0.1:1/x"), name: value}
    with pytest.raises(SettingsError) as raised:
        Settings.from_environment(settings)
    said = str(raised.value)
    assert name in said
    assert words in said
    assert "sec ret" not in said
    assert "sec_ret" not in said


def test_a_bad_setting_stops_every_command_with_exit_code_1() -> None:
    settings = {**settings_of("postgresql://u@127.0.0.1:1/x"), "LEDGER_PROT": "80"}
    for command in ("serve", "project", "status"):
        done = run_ledger(command, settings=settings, timeout=20)
        assert_sentence(done, "LEDGER_PROT", "did you mean LEDGER_PORT")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:geheim wort@127.0.0.1:1/x",
        "postgresql://u:geheim%zzwort@127.0.0.1:1/x",
        "host=127.0.0.1 password=geheim wort",
        "host=127.0.0.1 password='geheim",
    ],
)
def test_a_malformed_database_url_stops_the_start_and_is_not_shown(url: str) -> None:
    done = run_ledger("serve", settings=settings_of(url), timeout=20)
    said = assert_sentence(done, "LEDGER_DATABASE_URL")
    assert "geheim" not in said
    assert "wort" not in said


def test_serve_needs_a_database(module_database_url: str) -> None:
    settings = settings_of(module_database_url)
    del settings["LEDGER_DATABASE_URL"]
    assert_sentence(run_ledger("serve", settings=settings, timeout=20), "LEDGER_DATABASE_URL")


@pytest.mark.parametrize("host", ["256.1.1.1", "two words"])
def test_an_address_to_listen_on_that_is_none_is_a_sentence(
    module_database_url: str, host: str
) -> None:
    settings = {**settings_of(module_database_url), "LEDGER_HOST": host}
    assert_sentence(run_ledger("serve", settings=settings, timeout=20), "LEDGER_HOST")


def test_a_taken_port_is_a_sentence(server: LedgerServer) -> None:
    assert_sentence(run_ledger("serve", settings=server.settings, timeout=20), str(server.port))


KUBERNETES = {
    "LEDGER_SERVICE_HOST": "10.43.174.160",
    "LEDGER_SERVICE_PORT": "8000",
    "LEDGER_SERVICE_PORT_HTTP": "8000",
    "LEDGER_PORT": "tcp://10.43.174.160:8000",
    "LEDGER_PORT_8000_TCP": "tcp://10.43.174.160:8000",
    "LEDGER_PORT_8000_TCP_PROTO": "tcp",
    "LEDGER_PORT_8000_TCP_PORT": "8000",
    "LEDGER_PORT_8000_TCP_ADDR": "10.43.174.160",
    "LEDGER_API_SERVICE_HOST": "10.43.174.161",
    "LEDGER_API_SERVICE_PORT": "80",
    "LEDGER_API_PORT": "udp://[fd00::1]:80",
    "LEDGER_API_PORT_80_UDP_ADDR": "fd00::1",
}
"""What each container gets next to services called `ledger` and `ledger-api`."""


def test_what_kubernetes_sets_for_a_service_is_no_setting(module_database_url: str) -> None:
    settings = {**settings_of(module_database_url), **KUBERNETES}
    assert Settings.from_environment(settings).port == Settings().port
    assert run_ledger("status", settings=settings).returncode == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LEDGER_SERVICES_HOST", "x"),
        ("LEDGER_PORT", "tcp"),
        ("LEDGER_PORTS", "tcp://10.43.174.160:8000"),
        ("LEDGER_PORT_TCP", "80"),
    ],
)
def test_what_is_only_like_it_is_still_an_error(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


# --- secrets that can be guessed --------------------------------------------------------------

GOOD = "vJ3nQ8xK5tR2wZ7bY4mP"


@pytest.mark.parametrize(
    "weak",
    ["", "short", "123456789012345", "a" * 40, "abababababababababab", "change-me-change-me",
     "Your_Webhook_Token_1", "secret-secret-secret", "password123456789"],
)  # fmt: skip
def test_a_secret_that_can_be_guessed_is_named_and_not_shown(weak: str) -> None:
    for name in ("LEDGER_WEBHOOK_TOKENS", "LEDGER_ADMIN_KEY"):
        warnings = Settings.from_environment({name: weak}).weak_secrets()
        assert len(warnings) == (1 if weak else 0)
        assert all(name in warning and weak not in warning for warning in warnings)


def test_good_secrets_are_not_named_unless_one_is_both() -> None:
    good = {"LEDGER_WEBHOOK_TOKENS": f"{GOOD},{GOOD[::-1]}"}
    assert Settings.from_environment({**good, "LEDGER_ADMIN_KEY": GOOD[1:]}).weak_secrets() == []
    (warning,) = Settings.from_environment({**good, "LEDGER_ADMIN_KEY": GOOD}).weak_secrets()
    assert "also a webhook token" in warning


def test_a_server_with_a_weak_secret_starts_and_says_so(database_url: str, tmp_path: Path) -> None:
    with LedgerServer(database_url, tmp_path, token="hunter2", project=False) as started:
        assert started.send(event("lab", "b")).status_code == 200
        warned = [line for line in started.output.splitlines() if "openssl rand" in line]
    assert len(warned) == 1
    assert "LEDGER_WEBHOOK_TOKENS" in warned[0]
    assert "hunter2" not in warned[0]


def test_settings_for_tests_are_ignored(module_database_url: str) -> None:
    settings = {**settings_of(module_database_url), "LEDGER_TEST_ANYTHING": "x"}
    assert run_ledger("status", settings=settings).returncode == 0


# --- secrets ----------------------------------------------------------------------------------


@pytest.mark.one_server("its login needs no password")
def test_secrets_appear_in_no_output_and_no_session(
    server: LedgerServer, module_database_url: str, lab: str
) -> None:
    server.record(event(lab, "b"))
    server.send(event(lab, "c"), token="wrong")
    server.send(event(lab, "c"), token="", path=f"/webhooks/flabs/{TOKEN}")
    server.send(event(lab, "c"), token="", path=f"/webhooks/flabsx/{TOKEN}")
    server.settle()
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        password = connection.info.password
        sessions = connection.execute(
            "SELECT application_name, query FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        ).fetchall()
    shown = server.output + str(sessions) + server.anonymous.get("/metrics").text
    done = server.run("status")
    shown += (done.stdout + done.stderr).decode()
    for secret in (TOKEN, KEY, password):
        assert secret
        assert secret not in shown
    assert "'password'" not in shown
