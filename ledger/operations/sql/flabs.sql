-- What is known of the account at Flabs: the last look at it, its labs, and rotations of the token.

CREATE TABLE ledger.flabs_check (
    account      text        NOT NULL COLLATE "C",
    checked_at   timestamptz NOT NULL,
    succeeded_at timestamptz,
    failed_since timestamptz,
    failure      text,
    CONSTRAINT flabs_check_pkey PRIMARY KEY (account),
    CONSTRAINT flabs_check_failure_check CHECK ((failure IS NULL) = (failed_since IS NULL))
);

COMMENT ON TABLE ledger.flabs_check IS 'The last look at the account at Flabs: one row.';
COMMENT ON COLUMN ledger.flabs_check.account IS 'Its client id.';
COMMENT ON COLUMN ledger.flabs_check.checked_at IS 'When it was last looked at.';
COMMENT ON COLUMN ledger.flabs_check.succeeded_at IS
    'When its labs were last listed; null: never.';
COMMENT ON COLUMN ledger.flabs_check.failed_since IS
    'Since when each look failed; null if the last one did not.';
COMMENT ON COLUMN ledger.flabs_check.failure IS 'Why the last look failed, without Flabs'' words.';


CREATE TABLE ledger.flabs_lab (
    lab_id          text        NOT NULL COLLATE "C",
    name            text,
    first_listed_at timestamptz NOT NULL,
    CONSTRAINT flabs_lab_pkey PRIMARY KEY (lab_id)
);

COMMENT ON TABLE ledger.flabs_lab IS 'The labs of the account, as last listed.';


CREATE TABLE ledger.flabs_rotation (
    rotation      integer     NOT NULL GENERATED ALWAYS AS IDENTITY,
    begun_at      timestamptz NOT NULL,
    begun_by      text        NOT NULL,
    begun_by_key  text,
    replaced      text[]      NOT NULL COLLATE "C",
    token_id      text        NOT NULL COLLATE "C",
    subscribed_at timestamptz,
    finished_at   timestamptz,
    CONSTRAINT flabs_rotation_pkey PRIMARY KEY (rotation),
    CONSTRAINT flabs_rotation_finished_check
        CHECK (finished_at IS NULL OR subscribed_at IS NOT NULL)
);

-- One at a time.
CREATE UNIQUE INDEX flabs_rotation_open_idx
    ON ledger.flabs_rotation ((true))
    WHERE finished_at IS NULL;

COMMENT ON TABLE ledger.flabs_rotation IS 'Rotations of the webhook token that Flabs has.';
COMMENT ON COLUMN ledger.flabs_rotation.replaced IS
    'The ids of the tokens that are dropped at the end.';
COMMENT ON COLUMN ledger.flabs_rotation.token_id IS 'The id of the newest token.';
COMMENT ON COLUMN ledger.flabs_rotation.subscribed_at IS
    'When the last subscription with the newest token was made; null: not all are yet.';
COMMENT ON COLUMN ledger.flabs_rotation.finished_at IS
    'When the replaced tokens were dropped; null: not yet.';
