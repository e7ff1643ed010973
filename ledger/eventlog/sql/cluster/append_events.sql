-- The only writer of a distributed log: what ledger/eventlog/sql/append_events.sql does on one server.
--
-- It runs on the coordinator, whose lock is the one lane. Plans hold their values, because a plan with
-- parameters cannot be distributed. What is known already is looked up by one query on all shards, so
-- that no statement joins the log to anything but a list of values.
--
-- The head is a row of the coordinator. If a node has prepared its part of an append and did not learn
-- that it is committed, that part is missing for a moment: the head is right all the same, a repeat
-- waits for it at the unique key, and readers stop before the gap.

CREATE OR REPLACE FUNCTION ledger.append_events(
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
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    old_head        bigint;
    known_positions bigint[];
    known_times     timestamptz[];
    known_sources   text[];
    positions       bigint[];
    news            boolean[];
    repeats         boolean[];
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
        PERFORM set_config(
            'synchronous_commit', CASE s.reset_val WHEN 'off' THEN 'on' ELSE s.reset_val END, false
        )
        FROM pg_settings s
        WHERE s.name = 'synchronous_commit';
        RETURN;
    END IF;

    PERFORM pg_advisory_xact_lock(7402, 1);  -- Lock.APPEND

    SELECT h.position INTO STRICT old_head FROM ledger.log_head h;

    WITH delivery AS MATERIALIZED (
        SELECT d.lab_id, d.bill_id, d.digest
        FROM unnest(lab_ids, bill_ids, digests) AS d (lab_id, bill_id, digest)
    ),
    known AS MATERIALIZED (
        SELECT e.lab_id, e.bill_id, e.digest, e.position, e.received_at, e.source
        FROM ledger.event_log e
        JOIN delivery d ON e.lab_id = d.lab_id AND e.bill_id = d.bill_id AND e.digest = d.digest
        WHERE e.lab_id = ANY (lab_ids)  -- only the shards of these labs are asked
    )
    SELECT
        array_agg(k.position ORDER BY d.nth),
        array_agg(k.received_at ORDER BY d.nth),
        array_agg(k.source ORDER BY d.nth)
    INTO known_positions, known_times, known_sources
    FROM unnest(lab_ids, bill_ids, digests) WITH ORDINALITY AS d (lab_id, bill_id, digest, nth)
    LEFT JOIN (SELECT DISTINCT * FROM known) k USING (lab_id, bill_id, digest);

    -- From here on without the log: which are new, and at which positions.
    WITH delivery AS (
        SELECT
            d.nth,
            d.received_at,
            d.source,
            k.position AS known_position,
            k.received_at AS known_at,
            k.source AS known_source,
            min(d.nth) OVER (PARTITION BY d.digest, d.lab_id, d.bill_id) AS first_nth
        FROM unnest(received_ats, sources, lab_ids, bill_ids, digests) WITH ORDINALITY AS d (
            received_at, source, lab_id, bill_id, digest, nth
        )
        JOIN unnest(known_positions, known_times, known_sources) WITH ORDINALITY AS k (
            position, received_at, source, nth
        ) USING (nth)
    ),
    placed AS (
        SELECT
            d.nth,
            old_head + row_number() OVER (ORDER BY d.nth) AS position
        FROM delivery d
        WHERE d.known_position IS NULL AND d.nth = d.first_nth
    )
    SELECT
        array_agg(coalesce(d.known_position, p.position) ORDER BY d.nth),
        array_agg(p.nth IS NOT NULL AND p.nth = d.nth ORDER BY d.nth),
        array_agg(
            NOT coalesce(d.received_at = d.known_at AND d.source = d.known_source, false)
            ORDER BY d.nth
        )
    INTO positions, news, repeats
    FROM delivery d
    LEFT JOIN placed p ON p.nth = d.first_nth;

    INSERT INTO ledger.event_log (
        position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body
    )
    SELECT
        d.position,
        d.received_at,
        nullif(d.event_time, '1970-01-01Z'),
        d.source,
        d.lab_id,
        d.bill_id,
        d.event_type,
        d.digest,
        CASE WHEN d.body_sha256 IS NULL THEN d.body END
    FROM unnest(
        positions, received_ats, event_times, sources, lab_ids, bill_ids, event_types, digests,
        bodies, body_sha256s, news
    ) AS d (
        position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body,
        body_sha256, is_new
    )
    WHERE d.is_new;

    IF body_sha256s IS NOT NULL THEN
        INSERT INTO ledger.erasable_body (lab_id, position, body_sha256, body, erased_at)
        SELECT
            d.lab_id,
            d.position,
            d.body_sha256,
            CASE WHEN d.erased_at IS NULL THEN d.body END,
            d.erased_at
        FROM unnest(lab_ids, positions, body_sha256s, bodies, erased_ats, news) AS d (
            lab_id, position, body_sha256, body, erased_at, is_new
        )
        WHERE d.is_new AND d.body_sha256 IS NOT NULL;
    END IF;

    IF false = ANY (news) THEN
        WITH repeat AS MATERIALIZED (
            SELECT d.lab_id, d.position, d.received_at, d.source
            FROM unnest(lab_ids, positions, received_ats, sources, news, repeats) AS d (
                lab_id, position, received_at, source, is_new, is_repeat
            )
            WHERE NOT d.is_new AND d.is_repeat
        ),
        -- A delivery that comes out of a spool once more is no repeat of itself.
        noted AS MATERIALIZED (
            SELECT r.lab_id, r.position, r.received_at, r.source
            FROM ledger.repeat_delivery r
            JOIN repeat d
                ON r.lab_id = d.lab_id
                AND r.position = d.position
                AND r.received_at = d.received_at
                AND r.source = d.source
            WHERE r.lab_id = ANY (lab_ids)
        )
        INSERT INTO ledger.repeat_delivery (lab_id, position, received_at, source)
        SELECT d.lab_id, d.position, d.received_at, d.source
        FROM repeat d
        WHERE NOT EXISTS (
            SELECT
            FROM noted n
            WHERE
                n.position = d.position
                AND n.received_at = d.received_at
                AND n.source = d.source
        );
    END IF;

    UPDATE ledger.log_head
    SET position = old_head + (SELECT count(*) FROM unnest(news) AS n (is_new) WHERE n.is_new);

    PERFORM ledger.hint('ledger_event_log');
    RETURN QUERY SELECT d.position, d.is_new FROM unnest(positions, news) AS d (position, is_new);
END $$;
