-- Written under the append lock, with the right to append, as a delivery is: while nothing can be
-- appended, no receiver counts as alive.

CREATE FUNCTION ledger.record_liveness(
    of_instance uuid,
    since       timestamptz,
    until_now   timestamptz
) RETURNS void
LANGUAGE plpgsql
AS $$
BEGIN
    IF NOT has_table_privilege('ledger.event_log', 'INSERT') THEN
        RAISE EXCEPTION 'no right to append to ledger.event_log'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM pg_advisory_xact_lock(7402, 1);  -- Lock.APPEND
    INSERT INTO ledger.liveness AS l (instance, alive_from, alive_until)
    VALUES (of_instance, since, until_now)
    ON CONFLICT (instance, alive_from) DO UPDATE SET alive_until = excluded.alive_until;
END $$;

COMMENT ON FUNCTION ledger.record_liveness IS
    'Records that a receiver was able to make deliveries durable from one time to another.';
