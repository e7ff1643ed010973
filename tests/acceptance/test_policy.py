"""The policy: all processes agree on it, or refuse to start."""

import psycopg

from tests.support.server import run_ledger


def stored(url: str) -> list[tuple[int, str]]:
    with psycopg.connect(url) as connection:
        query = "SELECT retry_interval, set_by FROM ledger.policy ORDER BY policy_id"
        return connection.execute(query).fetchall()


def settings(url: str, **more: str) -> dict[str, str]:
    return {"LEDGER_DATABASE_URL": url, **more}


def test_a_new_database_adopts_the_first_policy_and_refuses_another(database_url: str) -> None:
    first = run_ledger("missing", settings=settings(database_url, LEDGER_RETRY_INTERVAL="7"))
    assert first.returncode == 0, first.stderr
    assert [interval for interval, _ in stored(database_url)] == [120, 7]
    other = run_ledger("missing", settings=settings(database_url, LEDGER_RETRY_INTERVAL="8"))
    assert other.returncode == 1
    said = other.stderr.decode()
    assert "LEDGER_RETRY_INTERVAL is 8 here and 7 in the database" in said
    assert "ledger migrate" in said
    assert run_ledger("missing", settings=settings(database_url)).returncode == 0
    assert len(stored(database_url)) == 2


def test_migrate_changes_the_policy_for_all(database_url: str) -> None:
    for interval in ("9", "120"):
        done = run_ledger(
            "migrate", settings=settings(database_url, LEDGER_RETRY_INTERVAL=interval)
        )
        assert done.returncode == 0, done.stderr
        assert stored(database_url)[-1] == (int(interval), "ledger migrate")
    before = stored(database_url)
    assert run_ledger("migrate", settings=settings(database_url)).returncode == 0
    assert stored(database_url) == before
