"""The event log: one append-only table, the lane that writes it, and the walls around it.

Revision ID: 0001
Revises: none
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

UPGRADE = """
-- What the service may do is this role's right, whoever logs in: each of its sessions begins
-- with SET ROLE. A role belongs to the cluster, so another database may have made it already.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'ledger_service') THEN
        CREATE ROLE ledger_service NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;
END $$;

CREATE TABLE event_log (
    position    bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    event_time  timestamptz,
    source      text        NOT NULL,
    lab_id      text        NOT NULL COLLATE "C",
    bill_id     text        NOT NULL COLLATE "C",
    event_type  text        NOT NULL COLLATE "C",
    digest      bytea       NOT NULL,
    body        bytea       NOT NULL,
    CONSTRAINT event_log_pkey PRIMARY KEY (lab_id, bill_id, position),
    CONSTRAINT event_log_digest_key UNIQUE (digest, lab_id),
    CONSTRAINT event_log_position_check CHECK (position > 0),
    -- What the drivers of the readers can hold, whatever a clock or an imported file says.
    CONSTRAINT event_log_received_at_check
        CHECK (received_at >= '1970-01-01Z' AND received_at < '3000-01-01Z'),
    CONSTRAINT event_log_source_check CHECK (source IN ('webhook', 'import', 'operator')),
    CONSTRAINT event_log_digest_check CHECK (octet_length(digest) = 32)
);

-- Not unique, although positions are: a log distributed by lab_id cannot have a unique key without
-- it. The lane gives each position once, and `ledger verify` proves it.
CREATE INDEX event_log_position_idx ON event_log (position);

COMMENT ON TABLE event_log IS
    'Every event once, as it came. Append-only: nothing here is ever changed or removed.';
COMMENT ON COLUMN event_log.position IS
    'Place in the log from 1, without gaps, in the order of the commits.';
COMMENT ON COLUMN event_log.received_at IS
    'When the first delivery of the event was received.';
COMMENT ON COLUMN event_log.event_time IS
    'When it happened, as the body says; null if it says nothing usable.';
COMMENT ON COLUMN event_log.source IS
    'webhook, import (what support sent) or operator (a decision).';
COMMENT ON COLUMN event_log.lab_id IS
    'As the body says; empty if it says nothing usable. So bill_id and event_type.';
COMMENT ON COLUMN event_log.digest IS
    'SHA-256 of the body''s JSON value written with sorted keys, or of the bytes if it is not JSON.';
COMMENT ON COLUMN event_log.body IS
    'The bytes as they came.';


CREATE TABLE repeat_delivery (
    lab_id      text        NOT NULL COLLATE "C",
    position    bigint      NOT NULL,
    received_at timestamptz NOT NULL,
    source      text        NOT NULL
);

CREATE INDEX repeat_delivery_position_idx ON repeat_delivery (position);

COMMENT ON TABLE repeat_delivery IS
    'Each further delivery of an event that the log holds already, by the event''s position.';


CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: it is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'What was received stays as it was received; state is made from it by ledger rebuild.';
END $$;

-- For each statement, so that one which finds no row is refused as well; ALWAYS, so that
-- session_replication_role does not switch them off.
CREATE TRIGGER event_log_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON event_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE event_log ENABLE ALWAYS TRIGGER event_log_is_append_only;

CREATE TRIGGER repeat_delivery_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON repeat_delivery
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
ALTER TABLE repeat_delivery ENABLE ALWAYS TRIGGER repeat_delivery_is_append_only;


-- The lane: the only writer of the log. It takes its lock in a statement of its own, for the
-- snapshot of a statement that waited inside would be older than what the holder before it
-- committed: the duplicate would be missed and the position given out twice. The lock is held to
-- the end of the transaction, and a transaction lets go of its locks after it has become visible;
-- so positions are in the order of the commits, and who sees one sees all before it.
--
-- One call, so that the lock is not held over a round trip. Sequential scans are off because a plan
-- made while the table was small would stay when it no longer is.
CREATE FUNCTION append_events(
    received_ats timestamptz[],
    event_times  timestamptz[],
    sources      text[],
    lab_ids      text[],
    bill_ids     text[],
    event_types  text[],
    digests      bytea[],
    bodies       bytea[]
) RETURNS TABLE (at_position bigint, recorded boolean)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    old_head bigint;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'append_events works in read committed transactions only, not in %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(7402, 1);

    SELECT e.position INTO old_head FROM event_log e ORDER BY e.position DESC LIMIT 1;
    old_head := coalesce(old_head, 0);

    RETURN QUERY
    WITH delivery AS MATERIALIZED (
        SELECT
            d.*,
            min(d.nth) OVER (PARTITION BY d.digest) AS first_nth,
            (
                SELECT e.position FROM event_log e
                WHERE e.digest = d.digest AND e.lab_id = d.lab_id
            ) AS known_position
        FROM unnest(
            received_ats, event_times, sources, lab_ids, bill_ids, event_types, digests, bodies
        ) WITH ORDINALITY AS d (
            received_at, event_time, source, lab_id, bill_id, event_type, digest, body, nth
        )
    ),
    new_event AS MATERIALIZED (
        SELECT d.*, old_head + row_number() OVER (ORDER BY d.nth) AS position
        FROM delivery d
        WHERE d.known_position IS NULL AND d.nth = d.first_nth
    ),
    appended AS (
        INSERT INTO event_log (
            position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body
        )
        SELECT
            n.position, n.received_at, n.event_time, n.source, n.lab_id, n.bill_id, n.event_type,
            n.digest, n.body
        FROM new_event n
    ),
    outcome AS MATERIALIZED (
        SELECT
            d.nth, d.lab_id, d.received_at, d.source,
            coalesce(d.known_position, n.position) AS position,
            n.nth IS NOT NULL AND n.nth = d.nth AS is_new
        FROM delivery d LEFT JOIN new_event n ON n.nth = d.first_nth
    ),
    noted AS (
        INSERT INTO repeat_delivery (lab_id, position, received_at, source)
        SELECT o.lab_id, o.position, o.received_at, o.source FROM outcome o WHERE NOT o.is_new
    )
    SELECT o.position, o.is_new FROM outcome o ORDER BY o.nth;

    -- A hint: who misses it finds the new events by polling.
    NOTIFY ledger_event_log;
END $$;

COMMENT ON FUNCTION append_events IS
    'The only writer of event_log: appends what is new, notes repeats, answers in the order given.';


-- The head is learned inside the lane. On one node a reader's own snapshot would do; where the log is
-- distributed, a transaction commits on one node after the other, and only the lane tells that all
-- of them have.
CREATE FUNCTION event_log_head() RETURNS bigint
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    head bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(7402, 1);
    SELECT e.position INTO head FROM event_log e ORDER BY e.position DESC LIMIT 1;
    RETURN coalesce(head, 0);
END $$;

COMMENT ON FUNCTION event_log_head IS 'The last position, learned inside the lane; 0 in an empty log.';


-- For people. Bodies can be anything, so what jsonb cannot hold is null here.
CREATE FUNCTION body_as_jsonb(body bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
AS $$
BEGIN
    -- jsonb keeps 1e9999 and 1e-9999 in a few bytes and writes them out with all their digits.
    IF convert_from(body, 'UTF8') ~ '[0-9][eE][+-]?[0-9]{4}' THEN
        RETURN NULL;
    END IF;
    RETURN convert_from(body, 'UTF8')::jsonb;
EXCEPTION WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
    RETURN NULL;
END $$;

CREATE VIEW event_log_json AS
SELECT
    position,
    received_at,
    event_time,
    source,
    lab_id,
    bill_id,
    event_type,
    encode(digest, 'hex') AS digest,
    body_as_jsonb(body)   AS body
FROM event_log;

COMMENT ON VIEW event_log_json IS
    'The log for people in psql: body is null where PostgreSQL''s jsonb cannot hold it.';


GRANT SELECT, INSERT ON event_log, repeat_delivery TO ledger_service;
GRANT SELECT ON event_log_json, alembic_version TO ledger_service;
"""

DOWNGRADE = """
-- First, and alone: an append that is under way must be seen by the look below.
LOCK TABLE event_log, repeat_delivery IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
    IF EXISTS (SELECT FROM event_log) THEN
        RAISE EXCEPTION 'the event log holds events: a downgrade would destroy them'
            USING HINT = 'Keep them with ledger export, then drop the database itself.';
    END IF;
END $$;
DROP SCHEMA IF EXISTS state_next CASCADE;
DROP SCHEMA IF EXISTS state CASCADE;
DROP VIEW event_log_json;
DROP FUNCTION body_as_jsonb, event_log_head, append_events;
DROP TABLE repeat_delivery, event_log;
DROP FUNCTION refuse_change;
-- The role stays: it belongs to the cluster, and another database may need it.
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON DATABASE %I FROM ledger_service', current_database());
END $$;
"""


def upgrade() -> None:
    """Make the log."""
    _run(UPGRADE)


def downgrade() -> None:
    """Take an empty log away; one that holds events is refused."""
    _run(DOWNGRADE)


def _run(script: str) -> None:
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    op.get_bind().connection.cursor().execute(script)
