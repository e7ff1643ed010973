"""A smaller log: two columns' worth of bytes less in each row, and half of its key's.

The source is one letter in the place of a word, which lets another event of the usual size onto each
page. The key holds 12 bytes of the digest in the place of 32: that no two events of one bill share
them is as certain as that nobody has made them for it, and the append compares the whole digests.
Positions only grow, so that the pages of their index can be filled to the brim.

The whole log is written anew while appends wait, about six seconds for a million events.

Revision ID: 0004
Revises: 0003
"""

from alembic import context, op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

UPGRADE = """
LOCK TABLE event_log, repeat_delivery IN ACCESS EXCLUSIVE MODE;
DROP VIEW event_log_json;

ALTER TABLE event_log
    DROP CONSTRAINT event_log_pkey,
    DROP CONSTRAINT event_log_source_check;
ALTER INDEX event_log_position_idx SET (fillfactor = 100);
ALTER TABLE event_log ALTER COLUMN source TYPE "char" USING source::"char";
ALTER TABLE repeat_delivery ALTER COLUMN source TYPE "char" USING source::"char";
-- By another name, so that a program of the version before fails and does not misread it.
ALTER TABLE event_log RENAME COLUMN source TO source_letter;
ALTER TABLE repeat_delivery RENAME COLUMN source TO source_letter;
ALTER TABLE event_log
    ADD CONSTRAINT event_log_source_letter_check CHECK (source_letter IN ('w', 'i', 'o'));
CREATE UNIQUE INDEX event_log_key ON event_log (lab_id, bill_id, substr(digest, 1, 12));

COMMENT ON COLUMN event_log.source_letter IS
    'w: webhook, i: import (what support sent), o: operator (a decision).';


CREATE FUNCTION source_name(source_letter "char") RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE source_letter WHEN 'w' THEN 'webhook' WHEN 'i' THEN 'import' ELSE 'operator' END;

COMMENT ON FUNCTION source_name IS 'The word that a source_letter stands for.';

CREATE VIEW event_log_json AS
SELECT
    position,
    received_at,
    event_time,
    source_name(source_letter) AS source,
    lab_id,
    bill_id,
    event_type,
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

    -- OFFSET 0 keeps it a look-up for each delivery, whatever the planner thinks of the log.
    INSERT INTO event_log (
        position, received_at, event_time, source_letter, lab_id, bill_id, event_type, digest, body
    )
    SELECT
        old_head + row_number() OVER (ORDER BY d.nth), d.received_at, d.event_time,
        d.source::"char", d.lab_id, d.bill_id, d.event_type, d.digest, d.body
    FROM (
        SELECT DISTINCT ON (given.digest, given.lab_id, given.bill_id) given.*
        FROM (
            SELECT
                generate_series(1, cardinality(digests)) AS nth,
                unnest(received_ats) AS received_at,
                unnest(event_times)  AS event_time,
                unnest(sources)      AS source,
                unnest(lab_ids)      AS lab_id,
                unnest(bill_ids)     AS bill_id,
                unnest(event_types)  AS event_type,
                unnest(digests)      AS digest,
                unnest(bodies)       AS body
        ) given
        ORDER BY given.digest, given.lab_id, given.bill_id, given.nth
    ) d
    WHERE NOT EXISTS (
        SELECT
        FROM event_log e
        WHERE
            e.lab_id = d.lab_id AND e.bill_id = d.bill_id
            AND substr(e.digest, 1, 12) = substr(d.digest, 1, 12) AND e.digest = d.digest
        OFFSET 0
    );
    GET DIAGNOSTICS new_events = ROW_COUNT;

    -- As nearly always: no repeat among them, so that each stands where it stood.
    IF new_events = cardinality(digests) THEN
        RETURN QUERY SELECT old_head + nth, true FROM generate_series(1, new_events) AS nth;
    ELSE
        RETURN QUERY
        WITH delivery AS MATERIALIZED (
            SELECT
                d.nth, d.received_at, d.source, d.lab_id, found.position,
                found.position > old_head AND d.nth = min(d.nth) OVER (PARTITION BY found.position)
                    AS is_new
            FROM unnest(received_ats, sources, lab_ids, bill_ids, digests)
                WITH ORDINALITY AS d (received_at, source, lab_id, bill_id, digest, nth)
            CROSS JOIN LATERAL (
                SELECT e.position
                FROM event_log e
                WHERE
                    e.lab_id = d.lab_id AND e.bill_id = d.bill_id
                    AND substr(e.digest, 1, 12) = substr(d.digest, 1, 12) AND e.digest = d.digest
                OFFSET 0
            ) found
        ),
        noted AS (
            INSERT INTO repeat_delivery (lab_id, position, received_at, source_letter)
            SELECT d.lab_id, d.position, d.received_at, d.source::"char"
            FROM delivery d
            WHERE NOT d.is_new
        )
        SELECT d.position, d.is_new FROM delivery d ORDER BY d.nth;
    END IF;

    -- A hint: who misses it finds the new events by polling.
    NOTIFY ledger_event_log;
END $$;
"""

DOWNGRADE = """
LOCK TABLE event_log, repeat_delivery IN ACCESS EXCLUSIVE MODE;

-- 0001 refuses it as well, but only after a large log would have been written anew for nothing.
DO $$
BEGIN
    IF EXISTS (SELECT FROM event_log) THEN
        RAISE EXCEPTION 'the event log holds events: a downgrade would destroy them'
            USING HINT = 'Keep them with ledger export, then drop the database itself.';
    END IF;
END $$;

DROP VIEW event_log_json;
DROP INDEX event_log_key;

ALTER TABLE event_log DROP CONSTRAINT event_log_source_letter_check;
ALTER INDEX event_log_position_idx RESET (fillfactor);
ALTER TABLE event_log ALTER COLUMN source_letter TYPE text USING source_name(source_letter);
ALTER TABLE repeat_delivery ALTER COLUMN source_letter TYPE text USING source_name(source_letter);
ALTER TABLE event_log RENAME COLUMN source_letter TO source;
ALTER TABLE repeat_delivery RENAME COLUMN source_letter TO source;
ALTER TABLE event_log
    ADD CONSTRAINT event_log_source_check CHECK (source IN ('webhook', 'import', 'operator')),
    ADD CONSTRAINT event_log_pkey PRIMARY KEY (lab_id, bill_id, digest);
DROP FUNCTION source_name;

COMMENT ON COLUMN event_log.source IS
    'webhook, import (what support sent) or operator (a decision).';

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
GRANT SELECT ON event_log_json TO ledger_service;
"""


def upgrade() -> None:
    """Write the log anew."""
    _run(UPGRADE)


def downgrade() -> None:
    """Write it as it was."""
    _run(DOWNGRADE)
    _run(context.script.get_revision(down_revision).module.APPEND)


def _run(script: str) -> None:
    # The driver's cursor: SQLAlchemy's own would read colons and percent signs as parameters.
    op.get_bind().connection.cursor().execute(script)
