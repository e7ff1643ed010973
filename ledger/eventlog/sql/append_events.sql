-- The only writer of the log.
--
-- Appends go through one lane, a transaction-scoped advisory lock, so that positions are gapless and
-- in commit order: PostgreSQL releases the lock after the transaction has become visible, so a reader
-- that has seen position N has seen every position before it.
--
-- The lock is taken in a statement of its own. A statement's snapshot is taken before it waits: one
-- that waited for the lock itself would not see what the previous holder committed, and would miss a
-- duplicate or assign a position twice.
--
-- An event time of 1970-01-01 stands for none: no event has it.
--
-- A delivery with a SHA-256 of its body has a body that the fold does not need: it goes to
-- ledger.erasable_body. One with a time of erasure comes out of an export without its body.
--
-- A rehearsal proves that deliveries could be appended, and appends none; of nulls, it proves that
-- some could. It takes the same locks, needs the same rights, and leaves a record that its commit
-- flushes and waits for as for an event.
--
-- The plan must not depend on statistics, which a young table does not have: sequential scans are off,
-- the plan is made once, and OFFSET 0 keeps the duplicate check one index look-up per delivery.

CREATE FUNCTION ledger.append_events(
    received_ats timestamptz[],
    event_times  timestamptz[],
    sources      text[],
    lab_ids      text[],
    bill_ids     text[],
    event_types  text[],
    digests      bytea[],
    bodies       bytea[],
    rehearsal    boolean DEFAULT false,
    body_sha256s bytea[] DEFAULT NULL,
    erased_ats   timestamptz[] DEFAULT NULL
) RETURNS TABLE (at_position bigint, recorded boolean)
LANGUAGE plpgsql
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    deliveries CONSTANT bigint := coalesce(cardinality(digests), 0);
    old_head   bigint;
    appended   bigint;
BEGIN
    IF current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'append_events requires a read committed transaction, not %',
            current_setting('transaction_isolation')
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF rehearsal THEN
        BEGIN
            PERFORM ledger.append_events(
                received_ats, event_times, sources, lab_ids, bill_ids, event_types, digests, bodies,
                false, body_sha256s, erased_ats
            );
            RAISE EXCEPTION USING ERRCODE = 'LE001', MESSAGE = 'the rehearsal went well';
        EXCEPTION WHEN SQLSTATE 'LE001' THEN
            NULL;
        END;
        PERFORM pg_logical_emit_message(true, 'ledger', 'a delivery could be appended');
        -- The server may ask for more durable commits than when the session began.
        PERFORM set_config(
            'synchronous_commit', CASE s.reset_val WHEN 'off' THEN 'on' ELSE s.reset_val END, false
        )
        FROM pg_settings s
        WHERE s.name = 'synchronous_commit';
        RETURN;
    END IF;

    PERFORM pg_advisory_xact_lock(7402, 1);  -- Lock.APPEND

    SELECT e.position INTO old_head FROM ledger.event_log e ORDER BY e.position DESC LIMIT 1;
    old_head := coalesce(old_head, 0);

    -- Nearly always, no delivery of a batch is a duplicate. Append all of them then, or none.
    INSERT INTO ledger.event_log (
        position,
        received_at,
        event_time,
        source,
        lab_id,
        bill_id,
        event_type,
        digest,
        body
    )
    SELECT
        old_head + d.nth,
        d.received_at,
        nullif(d.event_time, '1970-01-01Z'),
        d.source,
        d.lab_id,
        d.bill_id,
        d.event_type,
        d.digest,
        CASE WHEN d.body_sha256 IS NULL THEN d.body END
    FROM (
        SELECT
            generate_series(1, deliveries) AS nth,
            unnest(received_ats) AS received_at,
            unnest(event_times)  AS event_time,
            unnest(sources)      AS source,
            unnest(lab_ids)      AS lab_id,
            unnest(bill_ids)     AS bill_id,
            unnest(event_types)  AS event_type,
            unnest(digests)      AS digest,
            unnest(bodies)       AS body,
            unnest(body_sha256s) AS body_sha256
    ) d
    WHERE deliveries = (
        SELECT count(DISTINCT k.digest)
        FROM (
            SELECT
                unnest(lab_ids)  AS lab_id,
                unnest(bill_ids) AS bill_id,
                unnest(digests)  AS digest
        ) k
        WHERE NOT EXISTS (
            SELECT
            FROM ledger.event_log e
            WHERE e.lab_id = k.lab_id AND e.bill_id = k.bill_id AND e.digest = k.digest
            OFFSET 0
        )
    );
    GET DIAGNOSTICS appended = ROW_COUNT;

    IF appended = deliveries THEN
        IF body_sha256s IS NOT NULL THEN
            INSERT INTO ledger.erasable_body (lab_id, position, body_sha256, body, erased_at)
            SELECT
                d.lab_id,
                old_head + d.nth,
                d.body_sha256,
                CASE WHEN d.erased_at IS NULL THEN d.body END,
                d.erased_at
            FROM unnest(lab_ids, body_sha256s, bodies, erased_ats) WITH ORDINALITY AS d (
                lab_id, body_sha256, body, erased_at, nth
            )
            WHERE d.body_sha256 IS NOT NULL;
        END IF;
        at_position := old_head + 1;
        recorded := true;
        RETURN NEXT;
    ELSE
        RETURN QUERY
        WITH delivery AS MATERIALIZED (
            SELECT
                d.*,
                known.position AS known_position,
                known.received_at AS known_received_at,
                known.source AS known_source,
                min(d.nth) OVER (PARTITION BY d.digest, d.lab_id, d.bill_id) AS first_nth
            FROM unnest(
                received_ats, event_times, sources, lab_ids, bill_ids, event_types, digests, bodies,
                body_sha256s, erased_ats
            ) WITH ORDINALITY AS d (
                received_at, event_time, source, lab_id, bill_id, event_type, digest, body,
                body_sha256, erased_at, nth
            )
            LEFT JOIN LATERAL (
                SELECT e.position, e.received_at, e.source
                FROM ledger.event_log e
                WHERE e.lab_id = d.lab_id AND e.bill_id = d.bill_id AND e.digest = d.digest
                OFFSET 0
            ) known ON true
        ),
        new_event AS MATERIALIZED (
            SELECT
                d.*,
                old_head + row_number() OVER (ORDER BY d.nth) AS position
            FROM delivery d
            WHERE d.known_position IS NULL AND d.nth = d.first_nth
        ),
        appended_event AS (
            INSERT INTO ledger.event_log (
                position,
                received_at,
                event_time,
                source,
                lab_id,
                bill_id,
                event_type,
                digest,
                body
            )
            SELECT
                n.position,
                n.received_at,
                nullif(n.event_time, '1970-01-01Z'),
                n.source,
                n.lab_id,
                n.bill_id,
                n.event_type,
                n.digest,
                CASE WHEN n.body_sha256 IS NULL THEN n.body END
            FROM new_event n
        ),
        kept_body AS (
            INSERT INTO ledger.erasable_body (lab_id, position, body_sha256, body, erased_at)
            SELECT
                n.lab_id,
                n.position,
                n.body_sha256,
                CASE WHEN n.erased_at IS NULL THEN n.body END,
                n.erased_at
            FROM new_event n
            WHERE n.body_sha256 IS NOT NULL
        ),
        outcome AS MATERIALIZED (
            SELECT
                d.nth,
                d.lab_id,
                d.received_at,
                d.source,
                coalesce(d.known_position, n.position) AS position,
                n.nth IS NOT NULL AND n.nth = d.nth AS is_new,
                coalesce(
                    d.received_at = d.known_received_at AND d.source = d.known_source, false
                ) AS is_known
            FROM delivery d
            LEFT JOIN new_event n ON n.nth = d.first_nth
        ),
        repeat AS (
            INSERT INTO ledger.repeat_delivery (lab_id, position, received_at, source)
            SELECT o.lab_id, o.position, o.received_at, o.source
            FROM outcome o
            -- A delivery that comes out of a spool once more is no repeat of itself.
            WHERE
                NOT o.is_new
                AND NOT o.is_known
                AND NOT EXISTS (
                    SELECT
                    FROM ledger.repeat_delivery r
                    WHERE
                        r.position = o.position
                        AND r.received_at = o.received_at
                        AND r.source = o.source
                )
        )
        SELECT o.position, o.is_new
        FROM outcome o
        ORDER BY o.nth;
    END IF;

    -- A hint: a listener that misses it finds the new events by polling.
    PERFORM ledger.hint('ledger_event_log');
END $$;

COMMENT ON FUNCTION ledger.append_events IS
    'Appends new events and notes repeats, in one transaction. Returns one row per delivery, in the '
    'order given; if all deliveries are new, only the first one''s row: the others follow it.';
