-- When `ledger verify` ran, and what it found.

CREATE TABLE ledger.verification (
    verification_id bigint      GENERATED ALWAYS AS IDENTITY,
    verified_at     timestamptz NOT NULL,
    head            bigint      NOT NULL,
    bills           bigint      NOT NULL,
    difference      text,
    CONSTRAINT verification_pkey PRIMARY KEY (verification_id),
    CONSTRAINT verification_head_check CHECK (head >= 0),
    CONSTRAINT verification_bills_check CHECK (bills >= 0)
);

COMMENT ON TABLE ledger.verification IS 'When ledger verify ran, and what it found.';
COMMENT ON COLUMN ledger.verification.verified_at IS 'When it was done.';
COMMENT ON COLUMN ledger.verification.head IS
    'The last position of the log that it read, or up to which the log is as it was sealed.';
COMMENT ON COLUMN ledger.verification.bills IS 'Bills whose state was compared with their fold.';
COMMENT ON COLUMN ledger.verification.difference IS
    'The first difference, in words, within the log, from the fold or from a signed checkpoint. Null: none.';
