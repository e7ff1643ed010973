"""What each role of the database may do, table by table, and that it may do nothing else.

A new table or function fails these tests until somebody has decided who may use it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from psycopg import Connection
from psycopg.sql import SQL, Identifier

from ledger.eventlog.append import append
from ledger.projection.store import TABLES, VIEWS
from tests.support.histories import body, delivery
from tests.support.sessions import drain, one

pytestmark = pytest.mark.slow

ROLES = ("ledger_service", "ledger_intake", "ledger_reader")
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
ALL = set(PRIVILEGES)
APPEND = {"SELECT", "INSERT"}
CHANGE = {"SELECT", "INSERT", "UPDATE", "DELETE"}

MAY: dict[str, dict[str, set[str]]] = {
    "ledger_service": {
        **{f"state.{name}": ALL for name in TABLES},
        "state.checkpoint": ALL,
        **{f"ledger.{name}": ALL for name in VIEWS},
        "ledger.event_log": APPEND,
        "ledger.erasable_body": APPEND,
        "ledger.logged_event": {"SELECT"},
        "ledger.repeat_delivery": APPEND,
        "ledger.policy": APPEND,
        "ledger.import_run": {"SELECT", "INSERT", "UPDATE"},
        "ledger.liveness": CHANGE,
        "ledger.refusal": CHANGE,
        "ledger.delivery_hour": APPEND,
        "ledger.api_key": {"SELECT", "INSERT", "UPDATE"},
        "ledger.session": {"SELECT", "INSERT", "DELETE"},
        "ledger.login_link": {"SELECT", "INSERT", "DELETE"},
        "ledger.webhook_token": APPEND,
        "ledger.refused_delivery": {"SELECT", "DELETE"},
        "ledger.flabs_check": CHANGE,
        "ledger.flabs_lab": CHANGE,
        "ledger.flabs_rotation": APPEND,
        "ledger.alert_subject": CHANGE,
        "ledger.alert": CHANGE,
        "ledger.alert_delivery": CHANGE,
        "ledger.reconciliation_run": CHANGE,
        "ledger.verification": APPEND,
        "ledger.seal_tile": APPEND,
        "ledger.seal_checkpoint": APPEND,
        "ledger.current_policy": {"SELECT"},
        "ledger.schema_version": {"SELECT"},
    },
    "ledger_intake": {
        "ledger.event_log": {"INSERT"},
        "ledger.erasable_body": {"INSERT"},
        "ledger.repeat_delivery": {"INSERT"},
        "ledger.liveness": {"SELECT", "INSERT", "DELETE"},
        "ledger.refusal": {"SELECT", "INSERT", "UPDATE"},
        "ledger.delivery_hour": APPEND,
        "ledger.policy": {"SELECT"},
        "ledger.schema_version": {"SELECT"},
    },
    "ledger_reader": {f"ledger.{name}": {"SELECT"} for name in VIEWS},
}
"""What a role may do with whole tables and views."""

MAY_WITH_COLUMNS: dict[str, dict[str, set[tuple[str, str]]]] = {
    "ledger_service": {
        "ledger.seal_tile": {("UPDATE", "hashes")},
        "ledger.flabs_rotation": {
            ("UPDATE", name) for name in ("replaced", "token_id", "subscribed_at", "finished_at")
        },
        "ledger.delivery_hour": {("UPDATE", "deliveries")},
        "ledger.webhook_token": {
            ("UPDATE", name)
            for name in ("revoked_at", "revoked_by", "revoked_by_key", "last_used_at")
        },
    },
    "ledger_intake": {
        "ledger.event_log": {
            ("SELECT", name)
            for name in ("position", "lab_id", "bill_id", "digest", "received_at", "source")
        },
        "ledger.repeat_delivery": {
            ("SELECT", name) for name in ("position", "received_at", "source")
        },
        "ledger.liveness": {("UPDATE", "alive_until")},
        "ledger.delivery_hour": {("UPDATE", "deliveries")},
        "ledger.webhook_token": {
            ("UPDATE", "last_used_at"),
            *(
                ("SELECT", name)
                for name in ("token_id", "digest", "labs", "revoked_at", "last_used_at")
            ),
        },
    },
}
"""What a role may do with single columns, beyond what it may do with the whole table."""

MAY_RUN = {
    "ledger_service": {
        "append_events",
        "event_log_head",
        "erase_body",
        "keep_refused_deliveries",
        "is_logged",
        "last_position",
        "received_after",
    },
    "ledger_intake": {"append_events", "keep_refused_deliveries"},
    "ledger_reader": set[str](),
}
FOR_EVERYBODY = {"body_as_jsonb", "missing_event_state", "hint", "knows_lab"}
"""Functions that lend no right; views call the first two with their reader's."""


@pytest.fixture(scope="module")
def owner(module_database_url: str) -> Iterator[Connection]:
    with psycopg.connect(module_database_url, autocommit=True) as connection:
        yield connection


def relations(owner: Connection) -> list[str]:
    query = """
        SELECT n.nspname || '.' || c.relname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname IN ('ledger', 'state') AND c.relkind IN ('r', 'v', 'p', 'm', 'f')
    """
    return [name for (name,) in owner.execute(query)]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_with_each_table_what_is_listed_and_nothing_else(
    owner: Connection, role: str
) -> None:
    found = {
        relation: {
            privilege
            for privilege in PRIVILEGES
            if one(owner, "SELECT has_table_privilege(%s, %s, %s)", role, relation, privilege)
        }
        for relation in relations(owner)
    }
    assert {relation: may for relation, may in found.items() if may} == MAY[role]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_with_each_column_what_is_listed_and_nothing_else(
    owner: Connection, role: str
) -> None:
    query = """
        SELECT n.nspname || '.' || c.relname, p.privilege, a.attname
        FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        CROSS JOIN unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) AS p (privilege)
        WHERE
            n.nspname IN ('ledger', 'state')
            AND c.relkind IN ('r', 'v')
            AND has_column_privilege(%(role)s, c.oid, a.attnum, p.privilege)
            AND NOT has_table_privilege(%(role)s, c.oid, p.privilege)
    """
    found: dict[str, set[tuple[str, str]]] = {}
    for relation, privilege, column in owner.execute(query, {"role": role}):
        found.setdefault(relation, set()).add((privilege, column))
    assert found == MAY_WITH_COLUMNS.get(role, {})


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_run_the_functions_that_are_listed_and_no_others(
    owner: Connection, role: str
) -> None:
    query = """
        SELECT p.proname
        FROM pg_proc p
        WHERE
            p.pronamespace IN ('ledger'::regnamespace, 'state'::regnamespace)
            AND p.prorettype <> 'trigger'::regtype
            AND has_function_privilege(%s, p.oid, 'EXECUTE')
    """
    found = {name for (name,) in owner.execute(query, (role,))}
    assert found - FOR_EVERYBODY == MAY_RUN[role]


def test_two_functions_lend_the_rights_of_their_owner(owner: Connection) -> None:
    """One holds the bounds of the box, and one erases only what a decision in the log names."""
    query = """
        SELECT p.proname
        FROM pg_proc p
        WHERE p.prosecdef AND p.pronamespace IN ('ledger'::regnamespace, 'state'::regnamespace)
        ORDER BY 1
    """
    assert owner.execute(query).fetchall() == [("erase_body",), ("keep_refused_deliveries",)]


def test_no_role_may_log_in_or_is_more_than_it_seems(owner: Connection) -> None:
    query = """
        SELECT r.rolname
        FROM pg_roles r
        WHERE
            r.rolname = ANY(%s)
            AND (
                r.rolcanlogin OR r.rolsuper OR r.rolcreaterole OR r.rolcreatedb
                OR r.rolreplication OR r.rolbypassrls
            )
    """
    assert owner.execute(query, ([*ROLES],)).fetchall() == []
    members = """
        SELECT g.rolname
        FROM pg_auth_members m
        JOIN pg_roles g ON g.oid = m.roleid
        WHERE m.member = %s::regrole
    """
    assert owner.execute(members, ("ledger_service",)).fetchall() == [("ledger_intake",)]
    for role in ROLES[1:]:
        assert owner.execute(members, (role,)).fetchall() == []


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_create_in_no_schema_but_the_services(owner: Connection, role: str) -> None:
    query = "SELECT has_schema_privilege(%s, %s, %s)"
    is_service = role == "ledger_service"
    assert one(owner, query, role, "ledger", "USAGE")
    for schema, right in (("ledger", "CREATE"), ("state", "USAGE"), ("state", "CREATE")):
        assert one(owner, query, role, schema, right) is is_service, (schema, right)
    database = "SELECT has_database_privilege(%s, current_database(), 'CREATE')"
    assert one(owner, database, role) is is_service


# --- in practice ------------------------------------------------------------------------------


@contextmanager
def acting_as(url: str, role: str) -> Iterator[Connection]:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(role)))
        yield connection


@pytest.mark.parametrize("table", ["event_log", "erasable_body", "repeat_delivery", "policy"])
@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM ledger.{}",
        "TRUNCATE ledger.{}",
        "UPDATE ledger.{0} SET {1} = {1}",
        "DROP TABLE ledger.{}",
        "ALTER TABLE ledger.{} DISABLE TRIGGER ALL",
        "CREATE INDEX ON ledger.{0} ({1})",
    ],
)
@pytest.mark.parametrize("role", ROLES)
def test_nobody_who_serves_or_reads_changes_what_is_append_only(
    module_database_url: str, role: str, statement: str, table: str
) -> None:
    column = {"policy": "set_by", "erasable_body": "body"}.get(table, "source")
    with (
        acting_as(module_database_url, role) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.format(table, column).encode())


@pytest.mark.parametrize("table", ["event_log", "erasable_body", "repeat_delivery", "policy"])
@pytest.mark.parametrize("statement", ["DELETE FROM ledger.{}", "TRUNCATE ledger.{}"])
def test_the_owner_does_not_by_mistake(owner: Connection, statement: str, table: str) -> None:
    with pytest.raises(psycopg.errors.RestrictViolation, match="append-only"):
        owner.execute(statement.format(table).encode())


def test_the_intake_appends_recognises_repeats_and_reads_nothing(
    module_database_url: str, owner: Connection
) -> None:
    given = [delivery(body(bill="intake")), delivery(b"of the intake")]
    with acting_as(module_database_url, "ledger_intake") as intake:
        assert [outcome.recorded for outcome in append(intake, given)] == [True, True]
        assert [outcome.recorded for outcome in append(intake, given)] == [False, False]
        drain(owner)
        for query in (
            "SELECT body FROM ledger.event_log",
            "SELECT body FROM ledger.erasable_body",
            "SELECT body FROM ledger.logged_event",
            "SELECT * FROM ledger.event_log",
            "SELECT event_type FROM ledger.event_log",
            "SELECT * FROM ledger.repeat_delivery",
            "SELECT * FROM ledger.bill",
            "SELECT * FROM state.bill",
            "SELECT * FROM ledger.refused_delivery",
            "SELECT * FROM ledger.webhook_token",
            "SELECT * FROM ledger.api_key",
            "INSERT INTO ledger.policy DEFAULT VALUES",
            "SELECT ledger.event_log_head()",
            "COPY ledger.event_log TO STDOUT",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                intake.execute(query.encode())
