-- What every process must agree on: the subscription and the sender's retry schedule.

CREATE TABLE ledger.policy (
    policy_id       bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    set_at          timestamptz NOT NULL,
    set_by          text        NOT NULL,
    events          text[]      NOT NULL COLLATE "C",
    retry_interval  integer     NOT NULL,
    retry_count     integer     NOT NULL,
    retry_timeout   integer     NOT NULL,
    ask_again_after integer     NOT NULL,
    CONSTRAINT policy_pkey PRIMARY KEY (policy_id),
    CONSTRAINT policy_retry_check
        CHECK (retry_interval > 0 AND retry_count >= 0 AND retry_timeout >= 0)
);

COMMENT ON TABLE ledger.policy IS
    'The subscription and the sender''s retry schedule; the newest row counts. Append-only.';
COMMENT ON COLUMN ledger.policy.policy_id IS 'Grows with each change.';
COMMENT ON COLUMN ledger.policy.set_at IS 'When it was set.';
COMMENT ON COLUMN ledger.policy.set_by IS 'Who set it.';
COMMENT ON COLUMN ledger.policy.events IS
    'Event types subscribed at Flabs, unless a lab has its own: only these can be missing.';
COMMENT ON COLUMN ledger.policy.retry_interval IS 'Seconds between two attempts of the sender.';
COMMENT ON COLUMN ledger.policy.retry_count IS 'Attempts after the first.';
COMMENT ON COLUMN ledger.policy.retry_timeout IS 'Seconds that one attempt may take.';
COMMENT ON COLUMN ledger.policy.ask_again_after IS
    'Seconds after which a support request asks again for what an earlier one did not get.';

CREATE TRIGGER policy_is_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.policy
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
ALTER TABLE ledger.policy ENABLE ALWAYS TRIGGER policy_is_append_only;

-- The documented behaviour of Flabs, in force until an operator sets something else.
INSERT INTO ledger.policy (
    set_at,
    set_by,
    events,
    retry_interval,
    retry_count,
    retry_timeout,
    ask_again_after
)
VALUES (
    now(),
    'default',
    '{bill.created,report.completed,bill.completed,bill.deleted}',
    120,
    3,
    10,
    604800
);
