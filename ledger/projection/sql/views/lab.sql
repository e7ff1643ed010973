CREATE OR REPLACE VIEW ledger.lab AS
SELECT
    l.lab_id,
    l.first_received_at,
    l.last_received_at,
    coalesce(
        (
            SELECT s.events
            FROM state.subscription s
            WHERE s.lab_id = l.lab_id
            ORDER BY s.position DESC
            LIMIT 1
        ),
        p.events
    ) AS subscribed_events,
    m.missing,
    m.overdue
FROM state.lab l
CROSS JOIN ledger.current_policy p
CROSS JOIN LATERAL (
    SELECT
        count(*)::integer AS missing,
        (count(*) FILTER (WHERE e.is_overdue))::integer AS overdue
    FROM ledger.missing_event e
    WHERE e.lab_id = l.lab_id
) m;

COMMENT ON VIEW ledger.lab IS 'Labs that an event was received from.';
COMMENT ON COLUMN ledger.lab.lab_id IS 'The lab.';
COMMENT ON COLUMN ledger.lab.first_received_at IS 'When its first event was received.';
COMMENT ON COLUMN ledger.lab.last_received_at IS 'When its last event was received.';
COMMENT ON COLUMN ledger.lab.subscribed_events IS 'Event types subscribed for it: only these can be missing.';
COMMENT ON COLUMN ledger.lab.missing IS 'How many rows of missing_event it has.';
COMMENT ON COLUMN ledger.lab.overdue IS 'How many of them are overdue now.';
