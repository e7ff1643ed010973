"""`ledger archive`, `import --archive` and `rebuild --from`."""

import json
import subprocess
from pathlib import Path

import pytest
from msgspec import Struct

from ledger.eventlog.append import append
from ledger.postgres.connect import connect
from tests.support.commands import assert_sentence, settings_of
from tests.support.histories import mixed_history
from tests.support.server import Process, run_ledger
from tests.support.sessions import drain, one, state_rows, wait_until

NAME = "lab.example/ledger"


class Archived(Struct):
    """A log that was sealed, archived and then went on."""

    url: str
    settings: dict[str, str]
    folder: Path
    key: str
    published: Path
    said: str

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a command with the key of this log."""
        return run_ledger(*arguments, settings=self.settings)


@pytest.fixture(scope="module")
def archived(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    folder = tmp_path_factory.mktemp("archive")
    key = run_ledger("seal", "--new-key", str(folder / "key"), "--name", NAME).stdout.decode()
    settings = {**settings_of(module_database_url), "LEDGER_SEAL_KEY": str(folder / "key")}
    published = folder / "checkpoints"
    with connect(module_database_url, "test") as connection:
        append(connection, mixed_history(300))
        run_ledger("seal", "--publish", str(published), settings=settings)
        append(connection, mixed_history(20, seed=2))
        drain(connection)
    done = run_ledger("archive", str(folder / "archive"), settings=settings)
    assert done.returncode == 0, done.stderr
    said = done.stdout.decode()
    return Archived(module_database_url, settings, folder / "archive", key.strip(), published, said)


def test_a_run_says_what_it_did_and_what_it_left_out(archived: Archived) -> None:
    assert archived.said.splitlines() == [
        "archived  300 events in 1 file, read back and compared with the seal",
        "holds     the positions 1 to 300",
        "left out  19 events of the log that are not sealed yet: `ledger seal` seals",
    ]
    again = json.loads(archived.run("archive", str(archived.folder), "--json").stdout)
    assert again == {
        "ranges": 0, "events": 0, "last": 300, "head": 319, "signed": True, "still_held": 0
    }  # fmt: skip


def test_an_archive_is_checked_without_a_database(archived: Archived) -> None:
    check = ("archive", str(archived.folder), "--check")
    plain = run_ledger(*check)
    assert plain.returncode == 0, plain.stderr
    assert "No signature was checked" in plain.stdout.decode()
    signed = run_ledger(*check, "--public-key", archived.key, "--against", str(archived.published))
    assert f"Signed up to position 300 by {NAME}" in signed.stdout.decode()
    other = run_ledger(*check, "--public-key", "x+y")
    assert_sentence(other, "not a public key")


def test_an_archive_that_another_key_signed_ends_with_three(
    archived: Archived, tmp_path: Path
) -> None:
    made = run_ledger("seal", "--new-key", str(tmp_path / "key"), "--name", NAME)
    check = ("archive", str(archived.folder), "--check", "--public-key", made.stdout.decode())
    plain, as_json = run_ledger(*check), run_ledger(*check, "--json")
    assert (plain.returncode, as_json.returncode) == (3, 3)
    damage = json.loads(as_json.stdout)["damage"]
    assert "no good signature" in damage
    assert plain.stdout.decode() == f"DAMAGED: {damage}\n"


def test_what_cannot_be_done_is_a_sentence(archived: Archived, tmp_path: Path) -> None:
    folder = str(archived.folder)
    assert_sentence(archived.run("archive"), "DIR", code=2)
    assert_sentence(archived.run("archive", folder, "--check", "--renew"), "--renew", code=2)
    assert_sentence(archived.run("archive", folder, "--public-key", "x"), "--check", code=2)
    assert_sentence(archived.run("import", "-", "--archive", folder), "either", code=2)
    bill = ("--bill", "L", "B")
    assert_sentence(archived.run("rebuild", "--from", folder, *bill), "--from", code=2)
    for command in (
        ("archive", "--check"),
        ("import", "--archive"),
        ("rebuild", "--yes", "--from"),
    ):
        words = assert_sentence(archived.run(*command, str(tmp_path)), "is no archive of Ledger")
        assert words.count("\n") == 1


def test_a_damaged_archive_ends_with_three(archived: Archived, tmp_path: Path) -> None:
    for path in archived.folder.iterdir():
        content = bytearray(path.read_bytes())
        if path.suffix == ".parquet":
            content[len(content) // 2] ^= 0xFF
        (tmp_path / path.name).write_bytes(content)
    done = run_ledger("archive", str(tmp_path), "--check")
    assert done.returncode == 3
    assert done.stdout.decode().startswith("DAMAGED: ")
    assert "position" in done.stdout.decode()


def test_an_archive_is_imported_and_is_the_log_again(archived: Archived, database_url: str) -> None:
    settings = {**archived.settings, "LEDGER_DATABASE_URL": database_url}
    folder = ("--archive", str(archived.folder))
    dry = run_ledger("import", *folder, "--dry-run", settings=settings)
    assert b"Nothing was recorded" in dry.stderr
    done = run_ledger("import", *folder, settings=settings)
    assert done.returncode == 0, done.stderr
    assert run_ledger("seal", settings=settings).returncode == 0
    compared = run_ledger("verify", "--against", str(archived.published), settings=settings)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    assert "as it was sealed up to 300" in compared.stdout.decode()


def test_the_state_is_rebuilt_from_an_archive(archived: Archived) -> None:
    with connect(archived.url, "test") as connection:
        live = state_rows(connection)
        done = archived.run("rebuild", "--from", str(archived.folder), "--yes", "--processes", "1")
        assert done.returncode == 0, done.stderr
        assert b"those up to position 300 from" in done.stderr
        assert b"Rebuilt to position 319: 319 events" in done.stdout
        assert state_rows(connection) == live


def test_a_run_that_is_killed_is_repeated(database_url: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    settings = settings_of(database_url)
    with connect(database_url, "test") as connection:
        append(connection, mixed_history(5_000))
        head = one(connection, "SELECT ledger.event_log_head()")
        assert run_ledger("seal", settings=settings).returncode == 0
        process = Process("archive", str(folder), settings=settings, output=tmp_path / "output")
        try:
            wait_until(lambda: any(folder.glob("*")) or any(folder.glob(".*")), "it writes")
        finally:
            process.kill()
        done = run_ledger("archive", str(folder), settings=settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(run_ledger("archive", str(folder), "--check", "--json").stdout) == {
        "last": head, "ranges": 1, "erased": 0, "signed": 0
    }  # fmt: skip
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".jsonl", ".parquet"]
