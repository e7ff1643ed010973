-- Whether the log has heard of a lab: one look-up along the log's key, whatever the planner thinks of
-- the log. Before the first event of any lab, it knows none; then whoever delivers may be the sender.

CREATE FUNCTION ledger.knows_lab(lab text) RETURNS boolean
LANGUAGE sql
STABLE
SET enable_seqscan = off
RETURN EXISTS (SELECT FROM ledger.event_log e WHERE e.lab_id = lab OFFSET 0)
    OR NOT EXISTS (SELECT FROM ledger.event_log e WHERE e.lab_id > '' OFFSET 0);

COMMENT ON FUNCTION ledger.knows_lab IS
    'Whether the log has an event of a lab, or none of any lab yet.';
