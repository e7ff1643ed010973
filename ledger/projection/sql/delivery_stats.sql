-- How events were delivered, counted per lab.

CREATE TABLE lab (
    lab_id            text        NOT NULL COLLATE "C",
    first_received_at timestamptz NOT NULL,
    last_received_at  timestamptz NOT NULL,
    CONSTRAINT lab_pkey PRIMARY KEY (lab_id)
);

COMMENT ON TABLE lab IS 'When the first and the last readable event of a lab were received.';


CREATE TABLE delay (
    lab_id     text    NOT NULL COLLATE "C",
    day        date    NOT NULL,
    seconds    integer NOT NULL,
    deliveries bigint  NOT NULL,
    CONSTRAINT delay_pkey PRIMARY KEY (lab_id, day, seconds)
);

COMMENT ON TABLE delay IS
    'First deliveries by webhook, counted per lab, day (UTC) and seconds between event and receipt.';


CREATE TABLE lab_hour (
    lab_id           text        NOT NULL COLLATE "C",
    hour             timestamptz NOT NULL,
    events           bigint      NOT NULL,
    last_received_at timestamptz NOT NULL,
    CONSTRAINT lab_hour_pkey PRIMARY KEY (lab_id, hour)
);

COMMENT ON TABLE lab_hour IS
    'First deliveries by webhook, counted per lab and hour (UTC) of receipt: the lab''s habit.';
COMMENT ON COLUMN lab_hour.last_received_at IS 'When the last event of the hour was received.';
