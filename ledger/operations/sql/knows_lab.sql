-- Whether the log has heard of a lab: one look-up along the log's key, whatever the planner thinks of
-- the log. Before the first event of any lab, it knows none; then whoever delivers may be the sender.
--
-- In statements of their own, which can be planned wherever the log lies.

CREATE FUNCTION ledger.knows_lab(lab text) RETURNS boolean
LANGUAGE plpgsql
STABLE
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM FROM ledger.event_log e WHERE e.lab_id = lab LIMIT 1;
    IF FOUND THEN
        RETURN true;
    END IF;
    PERFORM FROM ledger.event_log e WHERE e.lab_id > '' LIMIT 1;
    RETURN NOT FOUND;
END $$;

COMMENT ON FUNCTION ledger.knows_lab IS
    'Whether the log has an event of a lab, or none of any lab yet.';
