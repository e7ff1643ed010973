-- The log as a rebuild from an archive reads it: what is archived, and from the log what came after.
--
-- A body that was erased since is not brought back.

-- The view asks with each chunk where the archive ends.
CREATE UNIQUE INDEX archived_event_position_idx ON archived_event (position);
CREATE INDEX archived_event_bill_idx ON archived_event (lab_id, bill_id);

CREATE VIEW archived_log AS
SELECT
    a.position,
    a.received_at,
    a.event_time,
    a.source,
    a.lab_id,
    a.bill_id,
    a.event_type,
    a.digest,
    CASE
        WHEN NOT EXISTS (
            SELECT
            FROM ledger.erasable_body b
            WHERE b.lab_id = a.lab_id AND b.position = a.position AND b.erased_at IS NOT NULL
        )
        THEN a.body
    END AS body
FROM archived_event a
UNION ALL
SELECT
    e.position,
    e.received_at,
    e.event_time,
    e.source,
    e.lab_id,
    e.bill_id,
    e.event_type,
    e.digest,
    e.body
FROM ledger.logged_event e
WHERE e.position > (SELECT max(a.position) FROM archived_event a);

COMMENT ON VIEW archived_log IS 'The log as a rebuild from an archive reads it.';
