-- Questions for a report tool (Metabase, Superset, Power BI, Grafana, psql), one chart each.
-- They read the public views alone. Give the tool a login with the role `ledger_reader`:
--     CREATE ROLE reports LOGIN PASSWORD '...'; GRANT ledger_reader TO reports;

-- Bills by day and lab: how many were made, and how many of these are completed by now.
SELECT
    date_trunc('day', created_at) AS day,
    lab_id,
    count(*) AS bills,
    count(*) FILTER (WHERE state = 'completed') AS completed
FROM ledger.bill
WHERE created_at >= now() - interval '90 days'
GROUP BY day, lab_id
ORDER BY day, lab_id;

-- Turnaround: hours from the bill to each report, by week; half of the reports, and nine of ten.
SELECT
    date_trunc('week', report.completed_at) AS week,
    count(*) AS reports,
    percentile_cont(0.5) WITHIN GROUP (ORDER BY report.completed_at - bill.created_at) AS half,
    percentile_cont(0.9) WITHIN GROUP (ORDER BY report.completed_at - bill.created_at) AS nine_of_ten
FROM ledger.report
JOIN ledger.bill USING (lab_id, bill_id)
WHERE report.completed_at IS NOT NULL AND bill.created_at IS NOT NULL
GROUP BY week
ORDER BY week;

-- What is missing now, by lab and state.
SELECT lab_id, state, sum(count) AS events, min(due_at) AS oldest_due
FROM ledger.missing_event
GROUP BY lab_id, state
ORDER BY events DESC;

-- What support answers: lines by request, and how long the open ones have waited.
SELECT
    number,
    made_at,
    lines_received,
    lines_closed,
    lines_requested,
    CASE WHEN state = 'open' THEN now() - made_at END AS waiting
FROM ledger.support_request
ORDER BY number;

-- Labs that nothing came from for longer than a day. `ledger labs` judges each by its own habit.
SELECT lab_id, last_received_at, now() - last_received_at AS silent_for
FROM ledger.lab
WHERE last_received_at < now() - interval '1 day'
ORDER BY last_received_at;

-- Hours of loss by month and lab: times whose events were all lost.
SELECT
    date_trunc('month', begins_at) AS month,
    coalesce(lab_id, '(no lab known)') AS lab,
    sum(extract(epoch FROM ends_at - begins_at)) / 3600 AS hours
FROM ledger.loss_window
GROUP BY month, lab
ORDER BY month, lab;

-- Deliveries by day: how many events came, and how often one was sent again.
SELECT
    date_trunc('day', received_at) AS day,
    count(*) FILTER (WHERE is_first) AS events,
    count(*) FILTER (WHERE NOT is_first) AS repeats
FROM ledger.delivery
WHERE source = 'webhook' AND received_at >= now() - interval '30 days'
GROUP BY day
ORDER BY day;

-- How late events come: the share that took more than a minute, so that a retry brought it. If it
-- grows, a loss may follow.
SELECT
    date_trunc('day', received_at) AS day,
    lab_id,
    count(*) AS events,
    avg((received_at - event_time > interval '60 seconds')::integer) AS share_of_retries
FROM ledger.event
WHERE source = 'webhook' AND event_time IS NOT NULL AND received_at >= now() - interval '30 days'
GROUP BY day, lab_id
ORDER BY day, lab_id;

-- Bills that somebody should look at.
SELECT lab_id, bill_id, finding
FROM ledger.bill, unnest(findings) AS finding
ORDER BY finding, lab_id, bill_id;
