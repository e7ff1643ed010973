"""`ledger seal`, `prove` and `verify --against`, and the checker that needs no Ledger."""

import json
import shutil
import subprocess
import sys
from base64 import b64decode
from pathlib import Path
from typing import Any

import psycopg
import pytest
from msgspec import Struct

from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from ledger.projection.verification import read_last_verification
from ledger.seals.notes import notes_in, read_checkpoint
from tests.support.commands import assert_sentence, settings_of
from tests.support.histories import mixed_history
from tests.support.payloads import event
from tests.support.server import ROOT, LedgerServer, free_port, run_ledger, wait_until
from tests.support.sessions import drain, tamper

NAME = "lab.example/ledger"


class Sealed(Struct):
    """A log that was sealed twice, and what was published of it."""

    url: str
    settings: dict[str, str]
    key: str
    published: Path
    body: bytes

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command with the key of this log."""
        return run_ledger(*arguments, settings=self.settings)

    def checkpoint(self, number: int, folder: Path) -> Path:
        """Write one of the published checkpoints to a file of its own."""
        file = folder / f"checkpoint{number}"
        file.write_text(list(notes_in(self.published.read_text()))[number])
        return file


@pytest.fixture(scope="module")
def sealed(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    folder = tmp_path_factory.mktemp("seals")
    made = run_ledger("seal", "--new-key", str(folder / "key"), "--name", NAME)
    assert made.returncode == 0, made.stderr
    settings = {**settings_of(module_database_url), "LEDGER_SEAL_KEY": str(folder / "key")}
    published = folder / "checkpoints"
    history = mixed_history(300)
    for deliveries in (history[:100], history[100:]):
        with connect(module_database_url, "test") as connection:
            append(connection, deliveries)
            drain(connection)
        done = run_ledger("seal", "--publish", str(published), settings=settings)
        assert done.returncode == 0, done.stderr
    return Sealed(module_database_url, settings, made.stdout.decode(), published, history[4].body)


def checked(proof: Path, key: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Check a proof with the one file, far from Ledger."""
    program = folder / "check_proof.py"
    shutil.copy(ROOT / "docs" / "check_proof.py", program)
    return subprocess.run(
        [sys.executable, "-I", str(program), str(proof), "--key", key],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_a_key_is_its_owners_alone_and_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "key"
    made = run_ledger("seal", "--new-key", str(path), "--name", NAME)
    assert path.stat().st_mode & 0o777 == 0o600
    settings = {"LEDGER_SEAL_KEY": str(path)}
    assert run_ledger("seal", "--public-key", settings=settings).stdout == made.stdout
    before = path.read_bytes()
    again = run_ledger("seal", "--new-key", str(path), "--name", NAME)
    assert_sentence(again, "exists")
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", ["seal", "project", "verify"])
def test_a_key_that_cannot_be_used_stops_the_start(
    sealed: Sealed, tmp_path: Path, command: str
) -> None:
    more = ("--against", str(sealed.published)) if command == "verify" else ()
    path = tmp_path / "key"
    settings = {**sealed.settings, "LEDGER_SEAL_KEY": str(path)}
    missing = run_ledger(command, *more, settings=settings)
    assert_sentence(missing, "LEDGER_SEAL_KEY", "No such file")
    shutil.copy(sealed.settings["LEDGER_SEAL_KEY"], path)
    path.chmod(0o604)
    open_ = run_ledger(command, *more, settings=settings)
    assert_sentence(open_, "LEDGER_SEAL_KEY", "chmod 600")
    path.chmod(0o600)
    path.write_text("secret")
    wrong = run_ledger(command, *more, settings=settings)
    assert "secret" not in assert_sentence(wrong, "LEDGER_SEAL_KEY", "no private key")


def test_without_a_key_the_log_is_hashed_and_not_signed(database_url: str) -> None:
    with connect(database_url, "test") as connection:
        append(connection, mixed_history(10))
    done = run_ledger("seal", settings=settings_of(database_url))
    assert "not set" in done.stdout.decode()
    sealed = json.loads(run_ledger("seal", "--json", settings=settings_of(database_url)).stdout)
    assert sealed["tree_size"] == 10
    assert sealed["key"] is None
    refused = run_ledger("seal", "--publish", "x", settings=settings_of(database_url))
    assert_sentence(refused, "LEDGER_SEAL_KEY", code=2)


def test_status_says_what_is_sealed_and_signed(sealed: Sealed) -> None:
    status = json.loads(sealed.run("status", "--json").stdout)
    assert status["seals"]["position"] == status["seals"]["signed_position"] == status["head"]
    assert "signed up to" in sealed.run("status").stdout.decode()


# --- proofs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proved(sealed: Sealed) -> bytes:
    done = sealed.run("prove", "5")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def proof(proved: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "proof.json"
    path.write_bytes(proved)
    return path


def test_a_proof_is_checked_without_ledger(sealed: Sealed, proof: Path, tmp_path: Path) -> None:
    content = json.loads(proof.read_bytes())
    assert b64decode(content["body"]) == sealed.body
    done = checked(proof, sealed.key, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "position 5 is in the log of" in done.stdout
    assert "2024-01-20 12:00:04+00:00" in done.stdout
    assert "the one that was received" in done.stdout
    content["body"] = None  # it was erased
    proof.write_text(json.dumps(content))
    assert checked(proof, sealed.key, tmp_path).returncode == 0


CHANGES: dict[str, Any] = {
    "leaf": lambda proof: proof["leaf"].replace("webhook", "import"),
    "position": lambda proof: proof["leaf"].replace('"position":5', '"position":6'),
    "body": lambda _: "AAAA",
    "path": lambda proof: proof["path"][1:],
    "checkpoint": lambda proof: proof["checkpoint"].replace("sealed_at 2", "sealed_at 1"),
    "no checkpoint": lambda _: None,
    "format": lambda _: "ledger inclusion proof 2",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_proof_is_wrong(sealed: Sealed, proof: Path, tmp_path: Path, change: str) -> None:
    content = json.loads(proof.read_bytes())
    member = {"position": "leaf", "no checkpoint": "checkpoint"}.get(change, change)
    content[member] = CHANGES[change](content)
    proof.write_text(json.dumps(content))
    done = checked(proof, sealed.key, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("WRONG: ")
    assert "Traceback" not in done.stderr


def test_a_proof_of_another_key_is_wrong(proof: Path, tmp_path: Path) -> None:
    other = run_ledger("seal", "--new-key", str(tmp_path / "key"), "--name", NAME).stdout.decode()
    for key in (other, "x", ""):
        assert checked(proof, key, tmp_path).returncode == 1


def test_two_checkpoints_are_proved_consistent(sealed: Sealed, tmp_path: Path) -> None:
    old, new = (sealed.checkpoint(number, tmp_path) for number in (0, 1))
    path = tmp_path / "proof.json"
    done = sealed.run("prove", "--consistent", str(old), str(new), "--output", str(path))
    assert done.returncode == 0, done.stderr
    found = checked(path, sealed.key, tmp_path)
    assert found.returncode == 0, found.stderr
    assert "begins with the log of 100 events" in found.stdout
    content = json.loads(path.read_bytes())
    content["path"][0] = "00" * 32
    path.write_text(json.dumps(content))
    assert checked(path, sealed.key, tmp_path).returncode == 1
    swapped = sealed.run("prove", "--consistent", str(new), str(old))
    assert_sentence(swapped, "the older one first")


def test_what_cannot_be_proved_is_said(sealed: Sealed, tmp_path: Path) -> None:
    assert_sentence(sealed.run("prove", "99999"), "no event at position 99999")
    assert_sentence(sealed.run("prove"), "POSITION", code=2)
    (tmp_path / "empty").touch()
    empty = str(tmp_path / "empty")
    assert_sentence(sealed.run("prove", "--consistent", empty, empty), "no checkpoint in")


# --- the log against a checkpoint ------------------------------------------------------------


def test_the_log_is_compared_with_all_that_was_published(sealed: Sealed) -> None:
    done = sealed.run("verify", "--against", str(sealed.published))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The log is as it was sealed up to " in done.stdout.decode()
    assert "The state is what the fold says" in done.stdout.decode()


def test_who_has_the_public_key_alone_compares_as_well(sealed: Sealed, tmp_path: Path) -> None:
    settings = settings_of(sealed.url)
    arguments = ("verify", "--against", str(sealed.published))
    assert_sentence(run_ledger(*arguments, settings=settings), "--public-key", code=2)
    (tmp_path / "public").write_text(sealed.key)
    for key in (sealed.key.strip(), str(tmp_path / "public")):
        assert run_ledger(*arguments, "--public-key", key, settings=settings).returncode == 0
    wrong = run_ledger(*arguments, "--public-key", "x+y", settings=settings)
    assert_sentence(wrong, "not a public key")


@pytest.mark.one_server("the damage is done by statements that a cluster refuses")
def test_a_change_ends_with_three_and_names_the_position(sealed: Sealed) -> None:
    with psycopg.connect(sealed.url, autocommit=True) as owner:
        change = "UPDATE ledger.event_log SET received_at = received_at {} interval '1 us'"
        where = " WHERE position = 42"
        tamper(owner, change.format("+") + where)
        try:
            done = sealed.run("verify", "--against", str(sealed.published))
        finally:
            tamper(owner, change.format("-") + where)
        recorded = read_last_verification(owner)
    assert done.returncode == 3
    assert done.stdout.decode().startswith("CHANGED: position 42 is not what was sealed")
    assert recorded
    assert recorded.difference == done.stdout.decode().strip()


# --- the projector ---------------------------------------------------------------------------


def test_the_projector_seals_signs_and_publishes(
    database_url: str, sealed: Sealed, tmp_path: Path
) -> None:
    published = tmp_path / "published"
    published.mkdir()
    settings = {
        "LEDGER_SEAL_KEY": sealed.settings["LEDGER_SEAL_KEY"],
        "LEDGER_SEAL_PUBLISH": str(published),
        "LEDGER_SEAL_INTERVAL": "1",
    }
    with LedgerServer(database_url, tmp_path, settings=settings) as server:
        server.record(event("lab", "bill"))
        wait_until(lambda: any(published.glob("checkpoint-*1.txt")), "the first is published")
        (checkpoint,) = server.get("/v1/checkpoints").json()["items"]
        assert [path.name for path in published.iterdir()] == [f"checkpoint-{1:020}.txt"]
        assert checkpoint["note"] == (published / f"checkpoint-{1:020}.txt").read_text()
        assert read_checkpoint(checkpoint["note"]).root.hex() == checkpoint["root"]
        proof = tmp_path / "proof.json"
        proof.write_bytes(server.get("/v1/events/1/proof").content)
        done = checked(proof, sealed.key, tmp_path)
        assert done.returncode == 0, done.stderr
        assert server.get("/v1/events/2/proof").status_code == 404


def test_time_stamps_need_what_they_are_of(sealed: Sealed) -> None:
    address = {"LEDGER_SEAL_TIMESTAMP_URL": "https://tsa.example"}
    alone = run_ledger("project", settings={**sealed.settings, **address})
    assert_sentence(alone, "LEDGER_SEAL_PUBLISH", "time stamps are of published checkpoints")
    secret = {"LEDGER_SEAL_TIMESTAMP_URL": "https://user:secret@tsa.example"}
    wrong = run_ledger("project", settings={**sealed.settings, **secret})
    assert "secret" not in assert_sentence(wrong, "LEDGER_SEAL_TIMESTAMP_URL")


def test_seal_says_that_its_authority_is_away(sealed: Sealed, tmp_path: Path) -> None:
    address = {"LEDGER_SEAL_TIMESTAMP_URL": f"http://127.0.0.1:{free_port()}"}
    published = tmp_path / "published"
    published.mkdir()
    done = run_ledger("seal", "--publish", str(published), settings={**sealed.settings, **address})
    assert_sentence(done, "no time stamp from http://127.0.0.1")
    assert list(published.glob("*.txt"))
