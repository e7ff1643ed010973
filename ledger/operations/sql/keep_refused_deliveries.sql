-- Keeps refused deliveries within the bounds of the box: rows, bytes, age.
--
-- When the box is full, the oldest stay: what is there may be real, and a flood must not push it out.
-- Only deliveries of labs that the log does not know make room, the newest first, and only for labs
-- that it knows. One address gets at most half of the box, so that a flood from one, even in the name
-- of known labs, leaves room for the others.
--
-- With the owner's rights, so that a receiver that may not read bodies can keep some.

CREATE FUNCTION ledger.keep_refused_deliveries(
    received_ats      timestamptz[],
    last_received_ats timestamptz[],
    numbers           bigint[],
    reasons           text[],
    clients           text[],
    lab_ids           text[],
    bill_ids          text[],
    event_types       text[],
    event_times       timestamptz[],
    digests           bytea[],
    bodies            bytea[],
    kept_since        timestamptz,
    most_rows         bigint,
    most_bytes        bigint
) RETURNS TABLE (kept bigint, repeated bigint, without_room bigint, known_labs text[])
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
SET enable_seqscan = off
AS $$
DECLARE
    rows_there  bigint;
    bytes_there bigint;
    given       record;
    victim      record;
BEGIN
    PERFORM pg_advisory_xact_lock(7402, 21);  -- Lock.REFUSED_BOX

    DELETE FROM ledger.refused_delivery r WHERE r.received_at < kept_since;

    UPDATE ledger.refused_delivery r
    SET
        times = r.times + g.number,
        last_received_at = greatest(r.last_received_at, g.last_received_at)
    FROM unnest(digests, numbers, last_received_ats) AS g (digest, number, last_received_at)
    WHERE r.digest = g.digest;
    GET DIAGNOSTICS repeated = ROW_COUNT;

    SELECT count(*), coalesce(sum(r.bytes), 0) INTO rows_there, bytes_there
    FROM ledger.refused_delivery r;
    kept := 0;
    without_room := 0;

    FOR given IN
        SELECT
            c.*,
            coalesce(held.number, 0) + row_number() OVER of_client AS client_rows,
            coalesce(held.bytes, 0) + sum(c.size) OVER of_client AS client_bytes
        FROM (
            SELECT
                g.*,
                octet_length(g.body)::bigint AS size,
                ledger.knows_lab(g.lab_id) AS lab_is_known
            FROM unnest(
                received_ats, last_received_ats, numbers, reasons, clients, lab_ids, bill_ids,
                event_types, event_times, digests, bodies
            ) AS g (
                received_at, last_received_at, number, reason, client, lab_id, bill_id,
                event_type, event_time, digest, body
            )
            WHERE
                NOT EXISTS (SELECT FROM ledger.refused_delivery r WHERE r.digest = g.digest)
                -- The log has it already: nothing would be lost.
                AND NOT ledger.is_logged(g.lab_id, g.bill_id, g.digest)
        ) c
        LEFT JOIN (
            SELECT r.client, count(*) AS number, sum(r.bytes) AS bytes
            FROM ledger.refused_delivery r
            WHERE r.client = ANY (clients)
            GROUP BY r.client
        ) held ON held.client = c.client
        WINDOW of_client AS (PARTITION BY c.client ORDER BY c.lab_is_known DESC, c.received_at, c.digest)
        ORDER BY c.lab_is_known DESC, c.received_at, c.digest
    LOOP
        IF 2 * given.client_rows > most_rows OR 2 * given.client_bytes > most_bytes THEN
            without_room := without_room + 1;
            CONTINUE;
        END IF;
        WHILE given.lab_is_known
            AND (rows_there >= most_rows OR bytes_there + given.size > most_bytes)
        LOOP
            DELETE FROM ledger.refused_delivery r
            WHERE r.delivery_id = (
                SELECT u.delivery_id
                FROM ledger.refused_delivery u
                WHERE NOT u.lab_is_known
                ORDER BY u.received_at DESC, u.delivery_id DESC
                LIMIT 1
            )
            RETURNING r.bytes INTO victim;
            EXIT WHEN NOT FOUND;
            rows_there := rows_there - 1;
            bytes_there := bytes_there - victim.bytes;
        END LOOP;
        IF rows_there >= most_rows OR bytes_there + given.size > most_bytes THEN
            without_room := without_room + 1;
            CONTINUE;
        END IF;
        INSERT INTO ledger.refused_delivery (
            delivery_id,
            received_at,
            last_received_at,
            times,
            reason,
            client,
            lab_id,
            lab_is_known,
            bill_id,
            event_type,
            event_time,
            digest,
            bytes,
            body
        )
        VALUES (
            left(encode(given.digest, 'hex'), 16),
            given.received_at,
            given.last_received_at,
            given.number,
            given.reason,
            given.client,
            given.lab_id,
            given.lab_is_known,
            given.bill_id,
            given.event_type,
            given.event_time,
            given.digest,
            given.size,
            given.body
        )
        ON CONFLICT (delivery_id) DO NOTHING;  -- digests made to begin alike
        kept := kept + 1;
        rows_there := rows_there + 1;
        bytes_there := bytes_there + given.size;
    END LOOP;

    known_labs := ARRAY(
        SELECT DISTINCT r.lab_id
        FROM ledger.refused_delivery r
        WHERE r.digest = ANY (digests) AND r.lab_is_known
        ORDER BY r.lab_id
        LIMIT 10
    );
    RETURN NEXT;
END $$;

REVOKE ALL ON FUNCTION ledger.keep_refused_deliveries FROM PUBLIC;

COMMENT ON FUNCTION ledger.keep_refused_deliveries IS
    'Keeps deliveries that were refused for their token, as far as there is room. Returns how many '
    'are new, were there already, and found no room, and up to ten known labs among those there.';
