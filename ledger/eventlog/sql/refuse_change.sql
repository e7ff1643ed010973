-- UPDATE, DELETE and TRUNCATE of the log fail for everybody, superusers included. The service's role
-- does not hold these rights either.

CREATE FUNCTION ledger.refuse_change() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    RAISE EXCEPTION '% of % refused: it is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'The log keeps what was received. To recompute the state, run ledger rebuild.';
END $$;

COMMENT ON FUNCTION ledger.refuse_change IS 'Refuses to change an append-only table.';

-- FOR EACH STATEMENT, so that a statement that matches no row is refused too. ENABLE ALWAYS, so that
-- session_replication_role cannot switch the triggers off.
CREATE TRIGGER event_log_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.event_log
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.event_log ENABLE ALWAYS TRIGGER event_log_is_append_only;

CREATE TRIGGER repeat_delivery_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.repeat_delivery
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.repeat_delivery ENABLE ALWAYS TRIGGER repeat_delivery_is_append_only;
