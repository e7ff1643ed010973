"""Checks of what `ledger migrate` and `ledger rebuild` made: schema, rights, policy, version."""

from collections.abc import Iterator

from psycopg import Connection

from ledger import schema
from ledger.doctor.findings import Finding, ok, warning, wrong
from ledger.errors import SchemaError, SettingsError
from ledger.model.bill import FOLD_VERSION
from ledger.operations import policy
from ledger.settings import Settings

APPEND_ONLY = ("event_log", "repeat_delivery", "erasable_body")
"""Tables whose rows nobody may change; the last one has a function that empties a body."""

NOTHING_WORKS = "until then no process of Ledger works on this database"

_MIGRATE = "run `ledger migrate`, which mends roles, owners and rights"

_MAY = """
SELECT
    r.role,
    t.name,
    p.privilege,
    pg_catalog.has_table_privilege(r.role, 'ledger.' || t.name, p.privilege)
FROM pg_catalog.unnest(%(roles)s::text[]) AS r (role)
CROSS JOIN pg_catalog.unnest(%(tables)s::text[]) AS t (name)
CROSS JOIN pg_catalog.unnest('{INSERT,UPDATE,DELETE,TRUNCATE}'::text[]) AS p (privilege)
"""

_TRIGGERS = """
SELECT c.relname
FROM pg_catalog.pg_class c
WHERE
    c.oid = ANY(ARRAY['ledger.event_log'::regclass, 'ledger.repeat_delivery'::regclass])
    AND NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_trigger t
        WHERE
            t.tgrelid = c.oid
            AND t.tgfoid = 'ledger.refuse_change'::regproc
            AND t.tgenabled = 'A'
    )
"""

_LOGIN = """
SELECT
    pg_catalog.quote_ident(session_user),
    (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = session_user),
    pg_catalog.pg_has_role(session_user, c.relowner, 'MEMBER')
FROM pg_catalog.pg_class c
WHERE c.oid = 'ledger.event_log'::regclass
"""

_TOKENS = "SELECT EXISTS (SELECT FROM ledger.webhook_token t WHERE t.revoked_at IS NULL)"
_KEYS = """
SELECT EXISTS (
    SELECT
    FROM ledger.api_key k
    WHERE k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > now())
)
"""


def check_schema(connection: Connection) -> Finding:
    """Check encoding and schema; without them nothing else of the database can be checked."""
    try:
        schema.check(connection)
    except SchemaError as error:
        return wrong("schema", str(error), NOTHING_WORKS)
    return ok("schema", f"the schema is {schema.SCHEMA_VERSION}, in UTF-8")


def check_installation(connection: Connection, settings: Settings) -> Iterator[Finding]:
    """Check what was set up. The connection acts as ledger_service. Raises `psycopg.Error`."""
    yield from _check_rights(connection)
    yield _check_login(connection)
    yield _check_fold_version(connection)
    yield _check_policy(connection, settings)
    yield from _check_credentials(connection, settings)


def _check_rights(connection: Connection) -> Iterator[Finding]:
    roles = ["ledger_service", "ledger_intake"]
    found = connection.execute(_MAY, {"roles": roles, "tables": list(APPEND_ONLY)}).fetchall()
    healthy = True
    for role, table, privilege, may in found:
        if may is (privilege == "INSERT"):
            continue
        healthy = False
        verb = "may not" if privilege == "INSERT" else "may"
        yield wrong("rights", f"{role} {verb} {privilege} ledger.{table}", _MIGRATE)
    for (table,) in connection.execute(_TRIGGERS):
        healthy = False
        yield wrong(
            "rights",
            f"the trigger that refuses to change ledger.{table} is missing or switched off",
            "compare the log with its seals (`ledger verify --against`), then: ALTER TABLE "
            f"ledger.{table} ENABLE ALWAYS TRIGGER {table}_is_append_only",
        )
    if healthy:
        yield ok("rights", "the service may append to the log, and cannot change or delete a row")


def _check_login(connection: Connection) -> Finding:
    row = connection.execute(_LOGIN).fetchone()
    assert row  # noqa: S101 -- the log's table exists
    login, is_superuser, owns = row
    if is_superuser or owns:
        what = "is a superuser" if is_superuser else "owns the log"
        return warning(
            "login",
            f"{login}, as whom LEDGER_DATABASE_URL logs in, {what}: whoever has its password "
            "can change the log",
            "let `ledger migrate` use it, and give the service a login that is only a member of "
            "ledger_service (docs/operating.md)",
        )
    return ok("login", f"{login} has no rights of its own to the log")


def _check_fold_version(connection: Connection) -> Finding:
    row = connection.execute("SELECT c.fold_version FROM state.checkpoint c").fetchone()
    if row is None:
        return wrong("fold version", "the state has no checkpoint", "run `ledger rebuild`")
    if row[0] != FOLD_VERSION:
        return wrong(
            "fold version",
            f"the state is of version {row[0]}, and this Ledger folds by version {FOLD_VERSION}",
            "run `ledger rebuild`: the projector waits for it",
        )
    return ok("fold version", f"the state is of version {FOLD_VERSION}")


def _check_policy(connection: Connection, settings: Settings) -> Finding:
    try:
        policy.check(connection, settings)
    except SettingsError as error:
        return wrong("policy", str(error), "until then servers with this environment do not start")
    return ok("policy", "this environment and the database agree on subscription and retries")


def _check_credentials(connection: Connection, settings: Settings) -> Iterator[Finding]:
    if settings.webhook_tokens or _one(connection, _TOKENS):
        yield ok("webhook tokens", "there is a valid webhook token")
    else:
        yield wrong(
            "webhook tokens",
            "there is no valid webhook token: every delivery is refused",
            "run `ledger tokens create`, or set LEDGER_WEBHOOK_TOKENS",
        )
    if settings.admin_key or _one(connection, _KEYS):
        yield ok("API keys", "there is a valid API key")
    else:
        yield warning(
            "API keys", "there is no valid API key: nobody can read", "run `ledger keys create`"
        )


def _one(connection: Connection, query: str) -> bool:
    row = connection.execute(query.encode()).fetchone()
    return bool(row and row[0])
