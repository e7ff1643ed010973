-- Finished runs of `ledger reconcile --since-last`.

CREATE TABLE ledger.reconciliation_run (
    as_of    timestamptz NOT NULL,
    position bigint      NOT NULL,
    CONSTRAINT reconciliation_run_pkey PRIMARY KEY (as_of, position)
);

COMMENT ON TABLE ledger.reconciliation_run IS
    'Finished runs of ledger reconcile --since-last; the newest is the last.';
