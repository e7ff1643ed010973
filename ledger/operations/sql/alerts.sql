-- Alerts: what was reported, and each alert's delivery to each channel.

CREATE TABLE ledger.alert_subject (
    kind       text        NOT NULL COLLATE "C",
    subject    text        NOT NULL COLLATE "C",
    alerted_at timestamptz NOT NULL,
    CONSTRAINT alert_subject_pkey PRIMARY KEY (kind, subject)
);

COMMENT ON TABLE ledger.alert_subject IS
    'What an alert has reported already, so that each subject is reported once, across rebuilds.';


CREATE TABLE ledger.alert (
    id      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    made_at timestamptz NOT NULL,
    title   text        NOT NULL,
    body    text        NOT NULL,
    CONSTRAINT alert_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE ledger.alert IS 'Alerts and their texts.';


CREATE TABLE ledger.alert_delivery (
    alert_id    bigint      NOT NULL,
    channel     text        NOT NULL COLLATE "C",
    tries       integer     NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,
    sent_at     timestamptz,
    given_up_at timestamptz,
    CONSTRAINT alert_delivery_pkey PRIMARY KEY (alert_id, channel),
    CONSTRAINT alert_delivery_alert_fkey FOREIGN KEY (alert_id) REFERENCES ledger.alert
);

CREATE INDEX alert_delivery_due_idx
    ON ledger.alert_delivery (next_try_at)
    WHERE sent_at IS NULL AND given_up_at IS NULL;

COMMENT ON TABLE ledger.alert_delivery IS
    'Each alert on each channel: sent, to be tried again, or given up.';
COMMENT ON COLUMN ledger.alert_delivery.channel IS
    'SHA-256 of the channel''s URL in hex: the URL itself may hold a secret.';
