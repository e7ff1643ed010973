-- Empties a body that the fold does not need, because a decision in the log says so.
--
-- The decision names the event by its lab, bill and digest, so that it is carried out in a copy of the
-- log as well, whatever positions that has. With the owner's rights: no role holds the right to change
-- a body.

CREATE FUNCTION ledger.erase_body(decision bigint) RETURNS bigint
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog
SET enable_seqscan = off
AS $$
DECLARE
    decided record;
    words   jsonb;
    erased  bigint;
BEGIN
    SELECT e.lab_id, e.bill_id, e.received_at, e.body INTO decided
    FROM ledger.event_log e
    WHERE e.position = decision AND e.source = 'operator' AND e.event_type = 'body.erased';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'position % of the log is no decision to erase a body', decision
            USING ERRCODE = 'restrict_violation';
    END IF;
    words := convert_from(decided.body, 'UTF8')::jsonb;

    PERFORM set_config('ledger.erasing', 'on', true);
    UPDATE ledger.erasable_body b
    SET body = NULL, erased_at = decided.received_at
    FROM ledger.event_log e
    WHERE
        e.lab_id = decided.lab_id
        AND e.bill_id = decided.bill_id
        AND e.digest = decode(words ->> 'digest', 'hex')
        AND e.source <> 'operator'
        AND b.lab_id = e.lab_id
        AND b.position = e.position
        AND b.body IS NOT NULL
    RETURNING b.position INTO erased;
    PERFORM set_config('ledger.erasing', '', true);
    RETURN erased;
END $$;

REVOKE ALL ON FUNCTION ledger.erase_body FROM PUBLIC;

COMMENT ON FUNCTION ledger.erase_body IS
    'Carries out a decision of the log to erase a body. Returns the event''s position; null if the log '
    'has no such body that is not needed and not erased yet.';

-- As for the log, and besides: whoever has the right to update cannot exchange or restore a body.
CREATE FUNCTION ledger.refuse_change_of_body() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND current_setting('ledger.erasing', true) = 'on' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION '% of % refused: it is append-only', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation',
              HINT = 'To erase a body that the fold does not need, run ledger erase.';
END $$;

COMMENT ON FUNCTION ledger.refuse_change_of_body IS
    'Refuses to change bodies, except for ledger.erase_body.';

CREATE TRIGGER erasable_body_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.erasable_body
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change_of_body();
ALTER TABLE ledger.erasable_body ENABLE ALWAYS TRIGGER erasable_body_is_append_only;

CREATE FUNCTION ledger.only_empty_a_body() RETURNS trigger
LANGUAGE plpgsql
AS $$
BEGIN
    IF NEW.body IS NULL
        AND OLD.erased_at IS NULL
        AND (NEW.lab_id, NEW.position, NEW.body_sha256) = (OLD.lab_id, OLD.position, OLD.body_sha256)
    THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'UPDATE of % refused: a body can be erased, and nothing else', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

COMMENT ON FUNCTION ledger.only_empty_a_body IS 'Refuses every change of a body but to empty it.';

CREATE TRIGGER erasable_body_is_only_emptied
    BEFORE UPDATE ON ledger.erasable_body
    FOR EACH ROW EXECUTE FUNCTION ledger.only_empty_a_body();
ALTER TABLE ledger.erasable_body ENABLE ALWAYS TRIGGER erasable_body_is_only_emptied;
