"""One key of the event log in the place of two, and an append that does less.

A digest is a random place in an index: in a large log nearly each event changed a page of its own,
which PostgreSQL writes whole into its WAL once after each checkpoint. Equal bodies name the same
bill, so the digest can stand behind the bill in the key: then the events of one bill lie together,
and one index serves both to find them and to know an event that came before.

The index is built while appends wait, some seconds for a million events. For a large log build it
first, while everything runs; this migration then takes it:

    CREATE UNIQUE INDEX CONCURRENTLY event_log_key ON event_log (lab_id, bill_id, digest);

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

UPGRADE = """
LOCK TABLE event_log IN ACCESS EXCLUSIVE MODE;

DO $$
BEGIN
    -- One whose concurrent build was interrupted is there and not valid.
    IF NOT EXISTS (
        SELECT FROM pg_index WHERE indexrelid = to_regclass('event_log_key') AND indisvalid
    ) THEN
        DROP INDEX IF EXISTS event_log_key;
        CREATE UNIQUE INDEX event_log_key ON event_log (lab_id, bill_id, digest);
    END IF;
END $$;

ALTER TABLE event_log
    DROP CONSTRAINT event_log_pkey,
    DROP CONSTRAINT event_log_digest_key,
    ADD CONSTRAINT event_log_pkey PRIMARY KEY USING INDEX event_log_key;
"""

APPEND = """
-- The lane: the only writer of the log. It takes its lock in a statement of its own, for the
-- snapshot of a statement that waited inside would be older than what the holder before it
-- committed: the duplicate would be missed and the position given out twice. The lock is held to
-- the end of the transaction, and a transaction lets go of its locks after it has become visible;
-- so positions are in the order of the commits, and who sees one sees all before it.
--
-- One call, so that the lock is not held over a round trip. One plan for good, for to plan for each
-- batch costs as much as to look its digests up; and no sequential scans, for a plan made while the
-- table was small stays when it no longer is.
CREATE OR REPLACE FUNCTION append_events(
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
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    old_head   bigint;
    new_events integer;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'append_events works in read committed transactions only, not in %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(7402, 1);

    SELECT e.position INTO old_head FROM event_log e ORDER BY e.position DESC LIMIT 1;
    old_head := coalesce(old_head, 0);

    -- OFFSET 0 keeps it a look-up for each delivery, whatever the planner thinks of the log.
    SELECT count(DISTINCT d.digest) INTO new_events
    FROM unnest(lab_ids, bill_ids, digests) AS d (lab_id, bill_id, digest)
    WHERE NOT EXISTS (
        SELECT
        FROM event_log e
        WHERE e.lab_id = d.lab_id AND e.bill_id = d.bill_id AND e.digest = d.digest
        OFFSET 0
    );

    -- As nearly always: no repeat among them, so each goes where it stands.
    IF new_events = cardinality(digests) THEN
        INSERT INTO event_log (
            position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body
        )
        SELECT
            old_head + d.nth, d.received_at, d.event_time, d.source, d.lab_id, d.bill_id,
            d.event_type, d.digest, d.body
        FROM unnest(
            received_ats, event_times, sources, lab_ids, bill_ids, event_types, digests, bodies
        ) WITH ORDINALITY AS d (
            received_at, event_time, source, lab_id, bill_id, event_type, digest, body, nth
        );
        RETURN QUERY SELECT old_head + nth, true FROM generate_series(1, new_events) AS nth;
    ELSE
        RETURN QUERY
        WITH delivery AS MATERIALIZED (
            SELECT
                d.*,
                min(d.nth) OVER (PARTITION BY d.lab_id, d.bill_id, d.digest) AS first_nth,
                (
                    SELECT e.position FROM event_log e
                    WHERE e.lab_id = d.lab_id AND e.bill_id = d.bill_id AND e.digest = d.digest
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
                n.position, n.received_at, n.event_time, n.source, n.lab_id, n.bill_id,
                n.event_type, n.digest, n.body
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
    END IF;

    -- A hint: who misses it finds the new events by polling.
    NOTIFY ledger_event_log;
END $$;
"""

# The function stays: it finds what it looks for by the former keys as well.
DOWNGRADE = """
ALTER TABLE event_log
    DROP CONSTRAINT event_log_pkey,
    ADD CONSTRAINT event_log_pkey PRIMARY KEY (lab_id, bill_id, position),
    ADD CONSTRAINT event_log_digest_key UNIQUE (digest, lab_id);
"""


def upgrade() -> None:
    """Exchange the keys."""
    _run(UPGRADE + APPEND)


def downgrade() -> None:
    """Exchange them back."""
    _run(DOWNGRADE)


def _run(script: str) -> None:
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    op.get_bind().connection.cursor().execute(script)
