-- The SQL twin of ledger/model/loss_windows.py and ledger/operations/loss_windows.py, as of now. A test
-- compares them.

CREATE OR REPLACE VIEW ledger.loss_window AS
WITH RECURSIVE policy AS MATERIALIZED (
    SELECT p.retry_interval, p.retry_count
    FROM ledger.current_policy p
),
recorded AS MATERIALIZED (
    SELECT
        range_agg(tstzrange(l.alive_from, l.alive_until)) AS times,
        min(l.alive_from) AS first,
        max(l.alive_until) AS last
    FROM ledger.liveness l
),
outage AS MATERIALIZED (
    -- A time in which no receiver was alive, or in which one refused deliveries.
    SELECT
        (
            tstzmultirange(tstzrange(r.first, now()))
            - r.times
            -- The last record is always a moment old, which is no outage yet.
            - CASE
                WHEN r.last BETWEEN now() - interval '5 s' AND now()
                THEN tstzmultirange(tstzrange(r.last, now()))
                ELSE '{}'
            END
        )
        + coalesce(
            (
                SELECT range_agg(tstzrange(f.refused_from, f.refused_until))
                FROM ledger.refusal f
            ),
            '{}'
        ) * tstzmultirange(tstzrange(r.first, now())) AS times
    FROM recorded r
    WHERE r.first <= now()
),
-- An event is lost if its first attempt and every retry fall into an outage.
attempt (nth, lost) AS (
    SELECT 0, o.times
    FROM outage o
    UNION ALL
    SELECT a.nth + 1, a.lost * coalesce(earlier.times, '{}')
    FROM attempt a
    CROSS JOIN policy p
    CROSS JOIN LATERAL (
        SELECT range_agg(
            tstzrange(
                lower(o.part) - (a.nth + 1) * p.retry_interval,
                upper(o.part) - (a.nth + 1) * p.retry_interval
            )
        ) AS times
        FROM outage
        CROSS JOIN LATERAL unnest(outage.times) AS o (part)
    ) earlier
    WHERE a.nth < p.retry_count
),
lost AS (
    SELECT part.window
    FROM attempt a
    JOIN policy p ON p.retry_count = a.nth
    CROSS JOIN LATERAL unnest(a.lost) AS part ("window")
),
-- Only labs that were heard of before the window ended and after it. '' stands for no lab.
lab_window AS (
    SELECT l.window, coalesce(b.lab_id, '') AS lab_id
    FROM lost l
    LEFT JOIN state.lab b
        ON b.first_received_at < upper(l.window) AND b.last_received_at >= upper(l.window)
),
requested AS MATERIALIZED (
    SELECT lab.lab_id, range_agg(tstzrange(w.begins_at, w.ends_at)) AS times
    FROM state.support_request_window w
    CROSS JOIN LATERAL unnest(
        CASE WHEN w.labs = '{}' THEN ARRAY[''] ELSE w.labs END
    ) AS lab (lab_id)
    GROUP BY lab.lab_id
),
closed AS MATERIALIZED (
    SELECT lab.lab_id, range_agg(tstzrange(c.begins_at, c.ends_at)) AS times
    FROM (
        SELECT w.labs, w.begins_at, w.ends_at
        FROM state.support_request_window w
        WHERE EXISTS (
            SELECT
            FROM state.support_request_closing k
            WHERE k.request = w.request AND k.position > w.position AND k.labs = '{}'
        )
        UNION ALL
        SELECT k.labs, k.begins_at, k.ends_at
        FROM state.loss_window_closing k
    ) c
    CROSS JOIN LATERAL unnest(
        CASE WHEN c.labs = '{}' THEN ARRAY[''] ELSE c.labs END
    ) AS lab (lab_id)
    GROUP BY lab.lab_id
)
SELECT
    lower(part.window) AS begins_at,
    upper(part.window) AS ends_at,
    nullif(w.lab_id, '') AS lab_id,
    s.state
FROM lab_window w
LEFT JOIN requested r ON r.lab_id = w.lab_id
CROSS JOIN LATERAL (
    SELECT
        tstzmultirange(w.window) AS lost,
        coalesce(r.times, '{}') AS requested,
        coalesce((SELECT range_agg(t) FROM closed c, unnest(c.times) t
            WHERE c.lab_id IN (w.lab_id, '')), '{}') AS closed
) d
CROSS JOIN LATERAL (
    VALUES
        ('open', d.lost - d.closed - d.requested),
        ('requested', (d.lost - d.closed) * d.requested),
        ('closed', d.lost * d.closed)
) s (state, parts)
CROSS JOIN LATERAL unnest(s.parts) AS part ("window");

COMMENT ON VIEW ledger.loss_window IS
    'Times whose events were lost with all their retries, because no receiver could store them: one row per lab.';
COMMENT ON COLUMN ledger.loss_window.begins_at IS 'Events that occurred from this time on were lost.';
COMMENT ON COLUMN ledger.loss_window.ends_at IS 'Events that occurred from this time on were not lost.';
COMMENT ON COLUMN ledger.loss_window.lab_id IS 'The lab; null if no lab is known to have been sending.';
COMMENT ON COLUMN ledger.loss_window.state IS 'open, requested (from support) or closed.';
