-- Event types that Ledger subscribed at Flabs.

CREATE TABLE flabs_subscription (
    lab_id        text        NOT NULL COLLATE "C",
    position      bigint      NOT NULL,
    party         text        NOT NULL COLLATE "C",
    events        text[]      NOT NULL COLLATE "C",
    endpoint      text        NOT NULL,
    in_path       boolean     NOT NULL,
    outcome       text        NOT NULL COLLATE "C",
    token_id      text                 COLLATE "C",
    subscribed_at timestamptz NOT NULL
);

COMMENT ON TABLE flabs_subscription IS
    'Event types subscribed at Flabs by lab (empty: all) and party (empty: none); rows add up.';
