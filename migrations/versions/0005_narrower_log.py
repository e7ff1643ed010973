"""A narrower log: another event on each page, and an append that costs less.

The types of bill events stand as one letter, and an event's time as whole seconds in four bytes, which
is all that it has. The append looks for repeats first and, finding none as nearly always, neither
sorts nor numbers the deliveries; it answers for all of them in one row. One check does what four did,
for each is compiled anew for each batch.

The whole log is written anew while appends wait, about four seconds for a million events.

Revision ID: 0005
Revises: 0004
"""

from alembic import context, op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

UPGRADE = """
LOCK TABLE event_log IN ACCESS EXCLUSIVE MODE;
DROP VIEW event_log_json;
DROP FUNCTION append_events;

CREATE FUNCTION event_type_code(event_type text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE event_type
    WHEN 'report.completed' THEN 'r'
    WHEN 'bill.created' THEN 'c'
    WHEN 'bill.completed' THEN 'b'
    WHEN 'bill.deleted' THEN 'd'
    WHEN '' THEN ''
    ELSE '=' || event_type
END;

CREATE FUNCTION event_type_name(type_code text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE type_code
    WHEN 'r' THEN 'report.completed'
    WHEN 'c' THEN 'bill.created'
    WHEN 'b' THEN 'bill.completed'
    WHEN 'd' THEN 'bill.deleted'
    ELSE substr(type_code, 2)
END;

COMMENT ON FUNCTION event_type_code IS 'The type_code that stands for an event type.';
COMMENT ON FUNCTION event_type_name IS 'The event type that a type_code stands for.';

-- Counted from 2050, all seconds of the years 2000 to 2100, in which events can happen, fit into four
-- bytes.
CREATE FUNCTION event_second(unix_seconds bigint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
    WHEN unix_seconds BETWEEN 946684800 AND 4133980799 THEN (unix_seconds - 2524608000)::integer
END;

CREATE FUNCTION event_time(event_second integer) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN to_timestamp(event_second + 2524608000::float8);

COMMENT ON FUNCTION event_second IS 'The event_second that stands for Unix seconds.';
COMMENT ON FUNCTION event_time IS 'The time that an event_second stands for.';

ALTER TABLE event_log
    DROP CONSTRAINT event_log_position_check,
    DROP CONSTRAINT event_log_received_at_check,
    DROP CONSTRAINT event_log_source_letter_check,
    DROP CONSTRAINT event_log_digest_check,
    ALTER COLUMN event_time TYPE integer USING event_second(extract(epoch FROM event_time)::bigint),
    ALTER COLUMN event_type TYPE text COLLATE "C" USING event_type_code(event_type),
    -- The years are what the drivers of the readers can hold, whatever an imported file says.
    ADD CONSTRAINT event_log_check CHECK (
        position > 0
        AND received_at >= '1970-01-01Z' AND received_at < '3000-01-01Z'
        AND source_letter IN ('w', 'i', 'o')
        AND octet_length(digest) = 32
    );
ALTER TABLE event_log RENAME COLUMN event_time TO event_second;
ALTER TABLE event_log RENAME COLUMN event_type TO type_code;

COMMENT ON COLUMN event_log.event_second IS
    'When it happened, as the body says: event_time(event_second); null if it says nothing usable.';
COMMENT ON COLUMN event_log.type_code IS
    'As the body says: r report.completed, c bill.created, b bill.completed, d bill.deleted, '
    '= and the type for any other; empty if it says nothing usable.';

CREATE VIEW event_log_json AS
SELECT
    position,
    received_at,
    event_time(event_second)   AS event_time,
    source_name(source_letter) AS source,
    lab_id,
    bill_id,
    event_type_name(type_code) AS event_type,
    encode(digest, 'hex')      AS digest,
    body_as_jsonb(body)        AS body
FROM event_log;

COMMENT ON VIEW event_log_json IS
    'The log for people in psql: body is null where PostgreSQL''s jsonb cannot hold it.';
GRANT SELECT ON event_log_json TO ledger_service;


-- The lane: the only writer of the log. It takes its lock in a statement of its own, for the
-- snapshot of a statement that waited inside would be older than what the holder before it
-- committed: the duplicate would be missed and the position given out twice. The lock is held to
-- the end of the transaction, and a transaction lets go of its locks after it has become visible;
-- so positions are in the order of the commits, and who sees one sees all before it.
--
-- One call, so that the lock is not held over a round trip. One plan for good, for to plan for each
-- batch costs as much as to look its digests up; and no sequential scans, for a plan made while the
-- table was small stays when it no longer is.
CREATE FUNCTION append_events(
    received_ats   timestamptz[],
    event_times    bigint[],
    source_letters "char"[],
    lab_ids        text[],
    bill_ids       text[],
    event_types    text[],
    digests        bytea[],
    bodies         bytea[]
) RETURNS TABLE (at_position bigint, recorded boolean)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    old_head   bigint;
    new_events bigint;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'append_events works in read committed transactions only, not in %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(7402, 1);

    SELECT e.position INTO old_head FROM event_log e ORDER BY e.position DESC LIMIT 1;
    old_head := coalesce(old_head, 0);

    -- All of them or, if one is a repeat, none. OFFSET 0 keeps it a look-up for each delivery,
    -- whatever the planner thinks of the log.
    INSERT INTO event_log (
        position, received_at, event_second, source_letter, lab_id, bill_id, type_code, digest, body
    )
    SELECT
        old_head + d.nth, d.received_at, event_second(d.event_time), d.source_letter,
        d.lab_id, d.bill_id, event_type_code(d.event_type), d.digest, d.body
    FROM (
        SELECT
            generate_series(1, cardinality(digests)) AS nth,
            unnest(received_ats)   AS received_at,
            unnest(event_times)    AS event_time,
            unnest(source_letters) AS source_letter,
            unnest(lab_ids)        AS lab_id,
            unnest(bill_ids)       AS bill_id,
            unnest(event_types)    AS event_type,
            unnest(digests)        AS digest,
            unnest(bodies)         AS body
    ) d
    WHERE cardinality(digests) = (
        SELECT count(DISTINCT k.digest)
        FROM (
            SELECT
                unnest(lab_ids)  AS lab_id,
                unnest(bill_ids) AS bill_id,
                unnest(digests)  AS digest
        ) k
        WHERE NOT EXISTS (
            SELECT
            FROM event_log e
            WHERE
                e.lab_id = k.lab_id AND e.bill_id = k.bill_id
                AND substr(e.digest, 1, 12) = substr(k.digest, 1, 12) AND e.digest = k.digest
            OFFSET 0
        )
    );
    GET DIAGNOSTICS new_events = ROW_COUNT;

    IF new_events = cardinality(digests) THEN
        at_position := old_head + 1;
        recorded := true;
        RETURN NEXT;
    ELSE
        RETURN QUERY
        WITH delivery AS MATERIALIZED (
            SELECT
                d.*,
                known.position AS known_position,
                min(d.nth) OVER (PARTITION BY d.digest, d.lab_id, d.bill_id) AS first_nth
            FROM unnest(
                received_ats, event_times, source_letters, lab_ids, bill_ids, event_types, digests,
                bodies
            ) WITH ORDINALITY AS d (
                received_at, event_time, source_letter, lab_id, bill_id, event_type, digest, body,
                nth
            )
            LEFT JOIN LATERAL (
                SELECT e.position
                FROM event_log e
                WHERE
                    e.lab_id = d.lab_id AND e.bill_id = d.bill_id
                    AND substr(e.digest, 1, 12) = substr(d.digest, 1, 12) AND e.digest = d.digest
                OFFSET 0
            ) known ON true
        ),
        new_event AS MATERIALIZED (
            SELECT d.*, old_head + row_number() OVER (ORDER BY d.nth) AS position
            FROM delivery d
            WHERE d.known_position IS NULL AND d.nth = d.first_nth
        ),
        appended AS (
            INSERT INTO event_log (
                position, received_at, event_second, source_letter, lab_id, bill_id, type_code,
                digest, body
            )
            SELECT
                n.position, n.received_at, event_second(n.event_time), n.source_letter,
                n.lab_id, n.bill_id, event_type_code(n.event_type), n.digest, n.body
            FROM new_event n
        ),
        outcome AS MATERIALIZED (
            SELECT
                d.nth, d.lab_id, d.received_at, d.source_letter,
                coalesce(d.known_position, n.position) AS position,
                n.nth IS NOT NULL AND n.nth = d.nth AS is_new
            FROM delivery d LEFT JOIN new_event n ON n.nth = d.first_nth
        ),
        noted AS (
            INSERT INTO repeat_delivery (lab_id, position, received_at, source_letter)
            SELECT o.lab_id, o.position, o.received_at, o.source_letter
            FROM outcome o
            WHERE NOT o.is_new
        )
        SELECT o.position, o.is_new FROM outcome o ORDER BY o.nth;
    END IF;

    -- A hint: who misses it finds the new events by polling.
    NOTIFY ledger_event_log;
END $$;

COMMENT ON FUNCTION append_events IS
    'The only writer of event_log: appends what is new, notes repeats. Answers with a row for each '
    'delivery in the order given; with the first one''s alone if all are new, and so follow it.';
"""

DOWNGRADE = """
LOCK TABLE event_log IN ACCESS EXCLUSIVE MODE;

-- 0001 refuses it as well, but only after a large log would have been written anew for nothing.
DO $$
BEGIN
    IF EXISTS (SELECT FROM event_log) THEN
        RAISE EXCEPTION 'the event log holds events: a downgrade would destroy them'
            USING HINT = 'Keep them with ledger export, then drop the database itself.';
    END IF;
END $$;

DROP VIEW event_log_json;
DROP FUNCTION append_events;
ALTER TABLE event_log RENAME COLUMN event_second TO event_time;
ALTER TABLE event_log RENAME COLUMN type_code TO event_type;
ALTER TABLE event_log
    DROP CONSTRAINT event_log_check,
    ALTER COLUMN event_time TYPE timestamptz USING event_time(event_time),
    ADD CONSTRAINT event_log_position_check CHECK (position > 0),
    ADD CONSTRAINT event_log_received_at_check
        CHECK (received_at >= '1970-01-01Z' AND received_at < '3000-01-01Z'),
    ADD CONSTRAINT event_log_source_letter_check CHECK (source_letter IN ('w', 'i', 'o')),
    ADD CONSTRAINT event_log_digest_check CHECK (octet_length(digest) = 32);
DROP FUNCTION event_type_code, event_type_name, event_second, event_time;

COMMENT ON COLUMN event_log.event_time IS
    'When it happened, as the body says; null if it says nothing usable.';
COMMENT ON COLUMN event_log.event_type IS NULL;
"""

_FROM_THE_VIEW_ON = "CREATE VIEW event_log_json"


def upgrade() -> None:
    """Write the log anew."""
    _run(UPGRADE)


def downgrade() -> None:
    """Make it as it was, with the view and the append of the revision before."""
    _run(DOWNGRADE)
    _, view, rest = context.script.get_revision(down_revision).module.UPGRADE.partition(
        _FROM_THE_VIEW_ON
    )
    _run(view + rest)
    _run("""
        COMMENT ON FUNCTION append_events IS
            'The only writer of event_log: appends what is new, notes repeats, answers in the order given.'
    """)


def _run(script: str) -> None:
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    op.get_bind().connection.cursor().execute(script)
