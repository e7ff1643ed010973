-- What archived_log is where the log is distributed: a copy, for no view of a distributed table and a
-- local one can be read in parts.

CREATE TEMPORARY TABLE erased_body AS
SELECT b.lab_id, b.position
FROM ledger.erasable_body b
WHERE b.erased_at IS NOT NULL;

UPDATE archived_event a
SET body = NULL
FROM pg_temp.erased_body b
WHERE b.lab_id = a.lab_id AND b.position = a.position;

DROP TABLE pg_temp.erased_body;

INSERT INTO archived_event (
    position, received_at, event_time, source, lab_id, bill_id, event_type, digest, body
)
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
    a.body
FROM archived_event a;

COMMENT ON VIEW archived_log IS 'The log as a rebuild from an archive reads it.';
