CREATE OR REPLACE VIEW ledger.delivery AS
SELECT
    e.lab_id,
    e.position,
    e.received_at,
    e.source,
    true AS is_first
FROM ledger.event_log e
WHERE e.source <> 'operator'
UNION ALL
SELECT
    r.lab_id,
    r.position,
    r.received_at,
    r.source,
    false AS is_first
FROM ledger.repeat_delivery r;

COMMENT ON VIEW ledger.delivery IS 'Every delivery of every event: the first and the repeats.';
COMMENT ON COLUMN ledger.delivery.lab_id IS 'The lab; empty if the body does not say.';
COMMENT ON COLUMN ledger.delivery.position IS 'Log position of the event.';
COMMENT ON COLUMN ledger.delivery.received_at IS 'When this delivery was received.';
COMMENT ON COLUMN ledger.delivery.source IS 'webhook, import or operator.';
COMMENT ON COLUMN ledger.delivery.is_first IS 'Whether this delivery brought the event into the log.';
