-- The log with all bodies: the only place that knows where a body stands.
--
-- A subquery in the place of a join: nearly all bodies stand in the log, and then it is not run.

CREATE VIEW ledger.logged_event AS
SELECT
    e.position,
    e.received_at,
    e.event_time,
    e.source,
    e.lab_id,
    e.bill_id,
    e.event_type,
    e.digest,
    CASE WHEN e.body IS NOT NULL THEN e.body ELSE (
        SELECT b.body
        FROM ledger.erasable_body b
        WHERE b.lab_id = e.lab_id AND b.position = e.position
    ) END AS body,
    CASE WHEN e.body IS NOT NULL THEN sha256(e.body) ELSE (
        SELECT b.body_sha256
        FROM ledger.erasable_body b
        WHERE b.lab_id = e.lab_id AND b.position = e.position
    ) END AS body_sha256,
    e.body IS NULL AS is_erasable,
    CASE WHEN e.body IS NULL THEN (
        SELECT b.erased_at
        FROM ledger.erasable_body b
        WHERE b.lab_id = e.lab_id AND b.position = e.position
    ) END AS erased_at
FROM ledger.event_log e;

COMMENT ON VIEW ledger.logged_event IS 'The log with all bodies that were not erased.';
