"""The whole schema: the log, the operators' tables and the walls around them.

Each object stands in an SQL file of its own, next to the code that uses it. The tables of the schema
`state` are not here: each rebuild creates them again (`ledger.projection.store`).

Revision ID: 0001
Revises: none
"""

from importlib.resources import files

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

OBJECTS = (
    ("ledger.postgres", "hint"),
    ("ledger.eventlog", "event_log"),
    ("ledger.eventlog", "erasable_body"),
    ("ledger.eventlog", "logged_event"),
    ("ledger.eventlog", "repeat_delivery"),
    ("ledger.eventlog", "refuse_change"),
    ("ledger.eventlog", "append_events"),
    ("ledger.eventlog", "erase_body"),
    ("ledger.eventlog", "event_log_head"),
    ("ledger.eventlog", "is_logged"),
    ("ledger.eventlog", "last_position"),
    ("ledger.eventlog", "received_after"),
    ("ledger.eventlog", "liveness"),
    ("ledger.eventlog", "refusal"),
    ("ledger.eventlog", "delivery_hour"),
    ("ledger.eventlog", "body_as_jsonb"),
    ("ledger.eventlog", "import_run"),
    ("ledger.postgres", "notify_credentials"),
    ("ledger.operations", "policy"),
    ("ledger.operations", "current_policy"),
    ("ledger.operations", "missing_event_state"),
    ("ledger.operations", "alerts"),
    ("ledger.operations", "reconciliation_run"),
    ("ledger.operations", "webhook_token"),
    ("ledger.operations", "flabs"),
    ("ledger.operations", "refused_delivery"),
    ("ledger.operations", "knows_lab"),
    ("ledger.operations", "keep_refused_deliveries"),
    ("ledger.operations", "api_key"),
    ("ledger.operations", "session"),
    ("ledger.projection", "verification"),
    ("ledger.seals", "seal_tile"),
    ("ledger.seals", "seal_checkpoint"),
)
"""The SQL files, in the order in which they depend on each other."""


def upgrade() -> None:
    """Create all objects."""
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    cursor = op.get_bind().connection.cursor()
    for package, name in OBJECTS:
        cursor.execute(files(package).joinpath("sql", f"{name}.sql").read_bytes())


def downgrade() -> None:
    """Refuse: there is no earlier schema, and the log is never dropped."""
    raise NotImplementedError("the first schema cannot be downgraded; drop the database instead")
