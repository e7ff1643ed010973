CREATE OR REPLACE VIEW ledger.support_request AS
SELECT
    r.request AS number,
    CASE
        WHEN l.requested > 0 OR w.is_open THEN 'open'
        ELSE 'closed'
    END AS state,
    r.made_at,
    r.made_by,
    nullif(r.lab_id, '') AS lab_id,
    r.note,
    l.requested AS lines_requested,
    l.received AS lines_received,
    l.closed AS lines_closed,
    c.closed_at,
    c.closed_by,
    c.reason AS closed_reason,
    r.made_by_key
FROM state.support_request r
LEFT JOIN LATERAL (
    SELECT c.closed_at, c.closed_by, c.reason
    FROM state.support_request_closing c
    WHERE c.request = r.request AND c.labs = '{}'
    ORDER BY c.position
    LIMIT 1
) c ON true
CROSS JOIN LATERAL (
    SELECT
        (count(*) FILTER (WHERE l.state = 'requested'))::integer AS requested,
        (count(*) FILTER (WHERE l.state = 'received'))::integer AS received,
        (count(*) FILTER (WHERE l.state = 'closed'))::integer AS closed
    FROM state.request_line l
    WHERE l.request = r.request
) l
CROSS JOIN LATERAL (
    SELECT EXISTS (
        SELECT
        FROM state.support_request_window a
        CROSS JOIN LATERAL unnest(a.labs) AS lab (lab_id)
        WHERE
            a.request = r.request
            AND c.closed_at IS NULL
            AND NOT tstzrange(a.begins_at, a.ends_at) <@ coalesce(
                (
                    SELECT range_agg(tstzrange(k.begins_at, k.ends_at))
                    FROM state.loss_window_closing k
                    WHERE k.labs = '{}' OR lab.lab_id = ANY (k.labs)
                ),
                '{}'
            )
    ) AS is_open
) w;

COMMENT ON VIEW ledger.support_request IS 'Requests to Flabs'' support.';
COMMENT ON COLUMN ledger.support_request.number IS 'The number of the request, from 1.';
COMMENT ON COLUMN ledger.support_request.state IS 'open while a line or a loss window of it is; then closed.';
COMMENT ON COLUMN ledger.support_request.made_at IS 'When it was made.';
COMMENT ON COLUMN ledger.support_request.made_by IS 'Who made it.';
COMMENT ON COLUMN ledger.support_request.lab_id IS 'The only lab that it asks for; null: all labs.';
COMMENT ON COLUMN ledger.support_request.note IS 'A note for support.';
COMMENT ON COLUMN ledger.support_request.lines_requested IS 'Lines still to come.';
COMMENT ON COLUMN ledger.support_request.lines_received IS 'Lines whose event has arrived.';
COMMENT ON COLUMN ledger.support_request.lines_closed IS 'Lines that were closed without an event.';
COMMENT ON COLUMN ledger.support_request.closed_at IS 'When an operator closed the whole request.';
COMMENT ON COLUMN ledger.support_request.closed_by IS 'Who closed it.';
COMMENT ON COLUMN ledger.support_request.closed_reason IS 'Why.';
COMMENT ON COLUMN ledger.support_request.made_by_key IS 'The API key of who made it; null: the command line.';
