-- Bodies that are not folded may hold a person's data: this view does not show them.
CREATE OR REPLACE VIEW ledger.event AS
SELECT
    e.position,
    e.received_at,
    e.event_time,
    e.source,
    e.lab_id,
    e.bill_id,
    e.event_type,
    encode(e.digest, 'hex') AS digest,
    ledger.body_as_jsonb(e.body) AS body,
    u.reason AS unreadable_reason,
    u.path AS unreadable_path,
    CASE WHEN e.body IS NULL THEN (
        SELECT b.erased_at
        FROM ledger.erasable_body b
        WHERE b.lab_id = e.lab_id AND b.position = e.position
    ) END AS erased_at
FROM ledger.event_log e
LEFT JOIN state.unreadable_event u
    ON u.lab_id = e.lab_id AND u.bill_id = e.bill_id AND u.position = e.position;

COMMENT ON VIEW ledger.event IS 'The event log, with the bodies that are folded as jsonb.';
COMMENT ON COLUMN ledger.event.position IS 'Place in the log: from 1, without gaps, in commit order.';
COMMENT ON COLUMN ledger.event.received_at IS 'When its first delivery was received.';
COMMENT ON COLUMN ledger.event.event_time IS 'When it occurred; null if the body does not say.';
COMMENT ON COLUMN ledger.event.source IS 'webhook, import or operator.';
COMMENT ON COLUMN ledger.event.lab_id IS 'The lab; empty if the body does not say.';
COMMENT ON COLUMN ledger.event.bill_id IS 'The bill; empty if the body does not say.';
COMMENT ON COLUMN ledger.event.event_type IS 'The event type; empty if the body does not say.';
COMMENT ON COLUMN ledger.event.digest IS 'SHA-256 that identifies the event, in hex.';
COMMENT ON COLUMN ledger.event.body IS 'The body; null if it is not folded or jsonb cannot represent it.';
COMMENT ON COLUMN ledger.event.unreadable_reason IS 'Why the event cannot be read; null if it can.';
COMMENT ON COLUMN ledger.event.unreadable_path IS 'JSON path of what is wrong with it.';
COMMENT ON COLUMN ledger.event.erased_at IS 'When its body was erased; null if it was not.';
